"""A picture that is shown twice is the same whole file, while somebody may be fetching it."""

from pathlib import Path

from gradio import image_utils, processing_utils
from PIL import Image

from rsm_app.ui.cached import save_whole, write_pictures_whole


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
