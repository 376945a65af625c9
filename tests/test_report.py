"""The page, opened in a browser as a reader does."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from flowers_jax import results
from flowers_jax.train import train_and_evaluate

NAMES = ("<script>alert(1)</script>", "a&b", "plain")


@pytest.fixture(scope="module")
def browser():
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("chromium and chromedriver are not installed (Debian: chromium-driver)")
    options = webdriver.ChromeOptions()
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with webdriver.Chrome(options=options, service=Service(driver)) as opened:
        yield opened


@pytest.fixture
def runs(tiny_config, tmp_path, image_folder):
    """Two runs of one epoch, on classes and files whose names are markup."""
    for old, new in zip(("blue", "green", "red"), NAMES, strict=True):
        for path in (image_folder / old).iterdir():
            path.rename(path.with_name(f"<img src=x onerror=alert(1)>&{path.name}"))
        (image_folder / old).rename(image_folder / new.replace("/", "\u2215"))
    tiny_config.max_epochs = 1
    for seed in (0, 1):
        tiny_config.seed = seed
        # So that there are mistakes: a step too large to learn from.
        tiny_config.optimizer.learning_rate = 5.0
        train_and_evaluate(tiny_config, tmp_path / "runs" / f"seed_{seed}")
    return tmp_path / "runs"


def write_report(runs, *flags):
    return subprocess.run(
        [sys.executable, "scripts/report.py", *flags, str(runs)],
        capture_output=True,
        text=True,
        timeout=120,
        env={key: value for key, value in os.environ.items() if key != "FLOWERS_DIR"},
    )


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
    thumbnails = browser.find_elements(By.CSS_SELECTOR, ".mistakes img")
    assert thumbnails
    text = browser.find_element(By.TAG_NAME, "body").text
    assert any(name.replace("/", "\u2215") in text for name in NAMES[:2])
    assert "<img src=x onerror=alert(1)>&" in text
    assert "was never run" in text  # a finding

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
        f"{100 * results.read_summary(runs / f'seed_{seed}')['best_val_accuracy']:.2f}"
        for seed in (1, 0)
    ]
    assert column(headings.index("ours") + 1) == ours


def test_images_outside_the_given_folders_are_not_read(runs):
    done = write_report(runs)
    assert done.returncode == 0, done.stderr
    page = (runs / "report.html").read_text()
    assert "image/jpeg" not in page
    assert "not below the folders that the report may read" in page


def test_the_images_of_a_run_from_another_machine_are_found_by_class_and_name(runs, image_folder):
    moved = image_folder.rename(image_folder.with_name("moved"))
    done = write_report(runs, f"--data.dir={moved}")
    assert done.returncode == 0, done.stderr
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
    done = write_report(runs)
    assert done.returncode == 0, done.stderr
    assert "image/jpeg" not in (runs / "report.html").read_text()


def test_a_folder_without_runs_is_said_in_a_sentence(tmp_path):
    done = write_report(tmp_path)
    assert done.returncode == 2
    assert "holds no finished run" in done.stderr
