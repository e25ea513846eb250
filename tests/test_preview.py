"""The picture of the transforms: every kind is there, labels are said, nothing comes from outside."""

from pathlib import Path

import pytest
from rich.console import Console

from v3s.config import PreviewConfig
from v3s.preview import preview

QUIET = Console(quiet=True)


def test_page_shows_every_kind_with_its_label(small_videos: Path, tmp_path: Path) -> None:
    config = PreviewConfig(
        data=str(small_videos), out=str(tmp_path / "p.html"), num_videos=2, clip_frames=8, clip_size=32
    )
    html = preview(config, console=QUIET).read_text()
    for name in ("SpatialScale", "SpatialProjection", "TemporalScale", "TemporalProjection"):
        assert name in html
    assert 'src="http' not in html


def test_unusable_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no video"):
        preview(PreviewConfig(data=str(tmp_path)), console=QUIET)
