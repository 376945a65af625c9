"""The page, opened in a browser as a reader does."""

import shutil
from pathlib import Path

import commands
import numpy as np
import pytest
from PIL import Image

from flowers_jax.data.folder import ImageFolder
from flowers_jax.runs import evaluate, files, run_folder
from flowers_jax.study import report
from flowers_jax.study.runner import Run
from flowers_jax.train import train_and_evaluate

NAMES = ("<script>alert(1)</script>", "a&b", "plain")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Images whose classes and files are named like markup, and a run of one epoch on them."""
    root = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(0)
    for name in NAMES:
        folder = root / "images" / name.replace("/", "\u2215")
        folder.mkdir(parents=True)
        for i in range(20):
            pixels = rng.integers(0, 256, (40, 36, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"<img src=x onerror=alert(1)>&{i}.png")
    changes = {"model": "pilot_cnn", "image_size": 16, "max_epochs": 1}
    changes |= {"data.source": "folder", "data.dir": str(root / "images")}
    # So that there are mistakes: a step too large to learn from.
    changes["optimizer.learning_rate"] = 5.0
    run = Run("common", changes, root / "runs" / "seed_0")
    train_and_evaluate(run.load(), run.workdir)
    return root


@pytest.fixture
def image_folder(trained):
    return trained / "images"


@pytest.fixture
def runs(trained, tmp_path):
    """Two runs, which differ in seed and accuracy."""
    for seed in (0, 1):
        workdir = tmp_path / "runs" / f"seed_{seed}"
        shutil.copytree(trained / "runs" / "seed_0", workdir)
        change_summary(workdir, seed=seed, best_val_accuracy=0.5 + 0.1 * seed)
    return tmp_path / "runs"


def change_summary(workdir, **changes):
    files.write_json(workdir / "summary.json", run_folder.read_summary(workdir) | changes)


def write_report(runs, *flags):
    return commands.run("scripts/report.py", *flags, runs)


def test_the_page_reads_sorts_and_escapes(runs, image_folder, browser):
    from selenium.webdriver.common.by import By

    done = write_report(runs, f"--data.dir={image_folder}")
    assert done.returncode == 0, done.stderr
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True},
    )
    browser.get((runs / "report.html").as_uri())
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    urls = browser.execute_script(
        "return performance.getEntriesByType('resource').map(e => e.name)"
    )
    assert not [url for url in urls if not url.startswith("data:")]  # nothing is fetched
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    broken = "return [...document.images].filter(i => !i.naturalWidth).length"
    assert browser.execute_script(broken) == 0
    heats = "#run0 > .mistakes img[alt^='Grad-CAM']"
    mistakes = browser.find_elements(By.CSS_SELECTOR, "#run0 > .mistakes li")
    assert len(mistakes) == len(browser.find_elements(By.CSS_SELECTOR, heats)) > 0
    assert browser.find_elements(By.CSS_SELECTOR, "#run0 details .mistakes img")  # right answers
    text = browser.find_element(By.TAG_NAME, "body").text
    assert any(name.replace("/", "\u2215") in text for name in NAMES[:2])
    assert "<img src=x onerror=alert(1)>&" in text

    def column(number):
        cells = browser.find_elements(By.CSS_SELECTOR, f"#summary td:nth-child({number})")
        return [cell.text for cell in cells]

    buttons = browser.find_elements(By.CSS_SELECTOR, "#summary th button")
    headings = [button.text for button in buttons]
    assert column(2) == ["0", "1"]
    browser.execute_script("arguments[0].click()", buttons[1])
    browser.execute_script("arguments[0].click()", buttons[1])
    assert column(2) == ["1", "0"]
    ours = [
        f"{100 * run_folder.read_summary(runs / f'seed_{seed}')['best_val_accuracy']:.2f}"
        for seed in (1, 0)
    ]
    assert column(headings.index("ours") + 1) == ours


def test_the_findings_are_shown_with_runs_of_the_study_only(runs):
    assert report.write(runs, None) == 2
    assert "indings" not in (runs / "report.html").read_text()
    config = run_folder.read_summary(runs / "seed_1")["config"]
    change_summary(runs / "seed_1", config=config | {"study_run": "improvement_0_base"})
    report.write(runs, None)
    page = (runs / "report.html").read_text()
    assert '<a href="#findings">Findings</a></nav>' in page
    assert page.count("<h2>Findings</h2>") == 1
    assert "was never run" in page
    section = page[page.index('<section id="findings">') :]
    assert "<h1>" not in section
    assert "<img" not in section  # nothing is fetched


def test_a_run_without_weights_is_shown_without_heat(runs, image_folder):
    shutil.rmtree(runs / "seed_0" / "checkpoints")
    report.write(runs, image_folder)
    page = (runs / "report.html").read_text()
    assert "Without Grad-CAM" in page
    assert "seed_0 holds no weights" in page


def test_the_surest_and_the_least_sure_right_answers_of_each_class():
    chances = [0.3, 0.9, 0.5, 0.4, 0.8, 0.6, 0.7, 0.35, 0.95, 0.2]
    answers = [report.Answer(Path(f"{c}"), "a", "a", c) for c in chances]
    wrong = report.Answer(Path("wrong"), "a", "b", 0.99)
    alone = report.Answer(Path("alone"), "b", "b", 0.5)
    right = report.right_answers([*answers, wrong, alone])
    assert [answer.probability for answer in right["a"]] == [
        *(0.95, 0.9, 0.8, 0.7),
        *(0.4, 0.35, 0.3, 0.2),
    ]
    assert right["b"] == [alone]


def test_images_outside_the_given_folders_are_not_read(runs):
    report.write(runs, None)
    page = (runs / "report.html").read_text()
    assert "image/jpeg" not in page
    assert "not below the folders that the report may read" in page


def test_the_images_of_a_run_from_another_machine_are_found_by_class_and_name(runs, image_folder):
    moved = shutil.copytree(image_folder, runs.parent / "moved")
    report.write(runs, moved)
    page = (runs / "report.html").read_text()
    assert "image/jpeg" in page
    assert "not below the folders that the report may read" not in page


def test_a_thumbnail_is_read_through_no_link_out_of_the_folders(runs, tmp_path):
    outside = tmp_path / "outside.png"
    Image.new("RGB", (8, 8), "red").save(outside)
    path = runs / "seed_0" / "predictions.csv"
    lines = path.read_text().splitlines()
    first = Path(lines[1].split(",")[0])
    path.write_text("\n".join(line.replace(str(first.parent), str(runs)) for line in lines) + "\n")
    (runs / first.name).symlink_to(outside)
    report.write(runs, None)
    assert "image/jpeg" not in (runs / "report.html").read_text()


def test_a_class_can_have_the_name_of_another_column(tmp_path):
    names = ("path", "label", "predicted")
    images = ImageFolder(("a/0.png", "b/1.png", "c/2.png"), np.array([0, 1, 2], np.int32), names)
    probabilities = np.array([[0.2, 0.5, 0.3], [0.1, 0.2, 0.7], [0, 0, 1]])
    evaluate.write_predictions(tmp_path / "predictions.csv", images, probabilities)
    mistakes = report.most_confident_mistakes(report.read_answers(tmp_path))
    assert [mistake[1:] for mistake in mistakes] == [
        ("label", "predicted", 0.7),
        ("path", "label", 0.5),
    ]


def test_a_folder_without_runs_is_said_in_a_sentence(tmp_path):
    done = write_report(tmp_path)
    assert done.returncode == 2
    assert "has no finished run" in done.stderr
