"""A picture that is shown twice is the same whole file, while somebody may be fetching it."""

import shutil
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from gradio import image_utils, processing_utils
from PIL import Image
from starlette.responses import PlainTextResponse

from rsm_app.jobs.store import Run, RunStore
from rsm_app.ui.cached import ServedFiles, folder_of, of_runs, save_whole, write_pictures_whole
from rsm_app.ui.pictures import enlarge


def test_a_picture_is_gradio_s_own_file_and_is_not_written_twice(tmp_path):
    picture = Image.effect_noise((64, 64), 50).convert("RGB")
    first = Path(save_whole(picture, str(tmp_path / "a"), format="png"))
    seen = first.stat()
    assert save_whole(picture, str(tmp_path / "a"), format="png") == str(first)
    assert (first.stat().st_ino, first.stat().st_size) == (seen.st_ino, seen.st_size)
    assert [path.name for path in first.parent.iterdir()] == ["image.png"]
    assert first.read_bytes() == processing_utils.encode_pil_to_bytes(picture, "png")


def test_components_save_their_pictures_so(tmp_path, monkeypatch):
    monkeypatch.setattr(processing_utils, "save_pil_to_cache", processing_utils.save_pil_to_cache)
    write_pictures_whole()
    assert processing_utils.save_pil_to_cache is save_whole
    path = Path(image_utils.save_image(Image.new("RGB", (4, 4)), str(tmp_path), "png"))
    before = path.stat().st_ino
    assert image_utils.save_image(Image.new("RGB", (4, 4)), str(tmp_path), "png") == str(path)
    assert path.stat().st_ino == before


def test_what_shows_runs_lies_below_their_ids(tmp_path):
    picture = Image.new("RGB", (4, 4))
    plain = Path(save_whole(picture, str(tmp_path), format="png"))
    runs = [Run(tmp_path / "a"), Run(tmp_path / "b"), Run(tmp_path / "a")]
    shown = Path(save_whole(of_runs(picture, runs), str(tmp_path), format="png"))
    assert shown.relative_to(tmp_path).parts[:4] == ("of-runs", "a", "b", "-")
    assert shown.read_bytes() == plain.read_bytes(), "the file says nothing of it"
    small = Path(save_whole(enlarge(picture, 2), str(tmp_path), format="png"))
    assert small.is_relative_to(folder_of(tmp_path, ["a", "b"])) and folder_of(tmp_path, []) == tmp_path


@pytest.mark.parametrize("missing", ["a", "b"])
def test_a_file_of_several_runs_is_served_while_all_are_there(tmp_path, monkeypatch, missing):
    cache, store = tmp_path / "cache", RunStore(tmp_path / "runs")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(cache))
    for name in ("a", "b"):
        (store.root / name).mkdir(parents=True)
        (store.root / name / "config.json").write_text("{}")
    path = save_whole(
        of_runs(Image.new("RGB", (4, 4)), [Run(store.root / "a"), Run(store.root / "b")]), str(cache)
    )

    async def served(scope, receive, send):
        await PlainTextResponse("served")(scope, receive, send)

    client = TestClient(ServedFiles(served, store))
    for method in ("GET", "HEAD"):
        assert client.request(method, f"/gradio_api/file={path}").status_code == 200
    shutil.rmtree(store.root / missing)
    for method in ("GET", "HEAD"):
        assert client.request(method, f"/gradio_api/file={path}").status_code == 404
    assert "was deleted" in client.get(f"/lora/gradio_api/file={path}").text
    for other in ("/", f"/gradio_api/file={cache}/other.png", "/gradio_api/file=", "/gradio_api/file=%00"):
        assert client.get(other).text == "served"
