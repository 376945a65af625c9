"""The page, in a browser, with real uploads."""

import dataclasses
import re
import shutil
from importlib.util import find_spec

import commands
import numpy as np
import pytest
from PIL import Image

from flowers_jax import demo

pytestmark = pytest.mark.skipif(not find_spec("gradio"), reason="gradio is not installed")


@pytest.fixture(scope="module")
def url(small_run):
    app, address, _ = demo.launch(small_run, prevent_thread_lock=True, quiet=True)
    yield address
    app.blocks.close()


def upload(browser, url, path, width=1280):
    """Opens the page, uploads a file, and returns the sentence that the page says of it."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(url)
    wait = WebDriverWait(browser, 60)
    wait.until(lambda b: b.find_elements(By.CSS_SELECTOR, "input[type=file]"))
    browser.find_element(By.CSS_SELECTOR, "input[type=file]").send_keys(str(path))
    wait.until(lambda b: b.find_element(By.ID, "answer").text.strip())
    return browser.find_element(By.ID, "answer").text


@pytest.mark.parametrize("width", [1280, 390])
def test_an_upload_is_classified_and_explained(small_run, url, browser, width):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    path = small_run.workdir.parent / "images" / "bright" / "0.png"
    said = upload(browser, url, path, width)
    (chances,) = small_run.predict([path])
    name = small_run.class_names[chances.argmax()]
    assert re.fullmatch(rf"{name} \(\d+\.\d%\)", said)
    assert float(said.split("(")[1][:-2]) == pytest.approx(100 * chances.max(), abs=0.06)
    # The upload, the heat, and six training images; one of these is the upload itself.
    loaded = "return [...document.images].filter(i => i.naturalWidth).length"
    WebDriverWait(browser, 30).until(lambda b: b.execute_script(loaded) >= 8)
    captions = [e.text for e in browser.find_elements(By.CSS_SELECTOR, ".caption-label")]
    assert captions[0] == "bright"
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    fetched = "return performance.getEntriesByType('resource').map(e => e.name)"
    outside = [
        u for u in browser.execute_script(fetched) if not u.startswith((url, "data:", "blob:"))
    ]
    assert not outside


def test_an_upload_that_is_no_image_is_refused_in_a_sentence(url, browser, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    assert upload(browser, url, tmp_path / "bad.png") == "This file is not an image."


def test_it_is_unsure_below_the_threshold(small_run, browser, tmp_path):
    app, address, _ = demo.launch(small_run, 1.0, prevent_thread_lock=True, quiet=True)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8)).save(tmp_path / "a.png")
    assert upload(browser, address, tmp_path / "a.png").startswith("unsure, perhaps")
    app.blocks.close()


def test_any_class_name_is_shown_as_it_is_and_several_pages_take_uploads(small_run, url, browser):
    names = ("<b>a*b*</b> $$x$$", "1. [_c_](d) | &lt; `e`")
    trained = dataclasses.replace(small_run, class_names=names)
    app, address, _ = demo.launch(trained, prevent_thread_lock=True, quiet=True)
    path = small_run.workdir.parent / "images" / "bright" / "0.png"
    said = upload(browser, address, path)
    assert said.rpartition(" (")[0] == names[small_run.predict([path]).argmax()]
    assert all(name in browser.find_element("tag name", "body").text for name in names)
    assert re.match("bright|dark", upload(browser, url, path))
    app.blocks.close()


def test_training_images_are_found_where_the_folder_is_split_already(small_run, tmp_path):
    source = small_run.workdir.parent / "images"
    for part in ("Training", "valid"):
        shutil.copytree(source, tmp_path / "inner" / part)
    config = small_run.config.copy_and_resolve_references()
    config.data.dir = str(tmp_path)
    nearest = demo.nearest_images(dataclasses.replace(small_run, config=config))
    names = [name for _, name in nearest(str(source / "bright" / "0.png"))]
    assert len(names) == 6
    assert names[0] == "bright"


def test_without_a_run_the_command_says_so():
    done = commands.run("demo")
    assert done.returncode == 2
    assert "give a run" in done.stderr
