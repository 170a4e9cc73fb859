"""A clone without a work folder goes on where the kept checkpoint stands."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from export.errors import ExportError
from export.pocket import autoencoder, checkpoint, denoiser, keep, latents
from export.pocket.settings import profile
from tests.export.pocket.drawn_shelf import write_shelf

pytestmark = pytest.mark.slow  # a whole training, which no other part of the program needs
SETTINGS = profile("smoke")


def quiet(_: str) -> None:
    """Hear what a stage says and keep it."""


@pytest.fixture(scope="module")
def halfway(tmp_path_factory):
    """A work folder in which the VAE is finished and the denoiser has made three steps."""
    work = tmp_path_factory.mktemp("halfway")
    write_shelf(work)
    assert autoencoder.build(work, SETTINGS, 9.0, quiet)
    latents.build(work, SETTINGS, 9.0, quiet)
    trainer = denoiser.open_trainer(work, SETTINGS)
    for _ in range(3):
        trainer._advance()
    trainer._save()
    return work


@pytest.fixture(scope="module")
def kept(halfway, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept")
    keep.build(halfway, folder, quiet)
    return folder


def rows_of(path):
    return checkpoint.load(path / "unet-state.safetensors")


def test_a_clone_goes_on_with_the_rounded_weights(halfway, kept, tmp_path):
    write_shelf(tmp_path)
    keep.resume(tmp_path, kept, SETTINGS, quiet)
    assert autoencoder.build(tmp_path, SETTINGS, 0.0, quiet)  # finished, though no minute is left
    latents.build(tmp_path, SETTINGS, 9.0, quiet)
    trainer = denoiser.open_trainer(tmp_path, SETTINGS)
    assert trainer._step == 3
    before, _ = rows_of(halfway)
    for name, p in trainer._parameters.items():
        rounded = torch.from_numpy(before[f"parameter.{name}"].astype(np.float16)).float()
        assert torch.equal(p.detach(), rounded), name
        assert torch.equal(trainer._average[name], rounded), name
    list(trainer.run(9.0))
    assert trainer.done


def test_what_is_kept_is_half_as_wide_and_nothing_else(halfway, kept):
    before, _ = rows_of(halfway)
    after, header = rows_of(kept)
    assert set(after) == {name for name in before if name.startswith("parameter.")}
    assert {array.dtype for array in after.values()} == {np.dtype(np.float16)}
    assert header["step"] == 3
    assert "halfway" not in (kept / "vae" / "config.json").read_text()  # where it was
    vae = autoencoder.load_autoencoder(kept / "vae")
    whole = autoencoder.load_autoencoder(halfway / "vae")
    for name, p in whole.state_dict().items():
        torch.testing.assert_close(vae.state_dict()[name], p, rtol=1e-3, atol=1e-6)


def test_a_work_folder_is_never_set_back(halfway, kept):
    before = (halfway / "unet-state.safetensors").read_bytes()
    keep.resume(halfway, kept, SETTINGS, quiet)
    assert (halfway / "unet-state.safetensors").read_bytes() == before


def test_a_copy_that_was_cut_off_is_made_again(kept, tmp_path):
    (tmp_path / "vae").mkdir()
    keep.resume(tmp_path, kept, SETTINGS, quiet)
    assert autoencoder.load_autoencoder(tmp_path / "vae")
    assert rows_of(tmp_path)[1]["step"] == 3


def test_a_finished_vae_of_other_settings_is_refused(halfway):
    with pytest.raises(ExportError, match="other settings"):
        autoencoder.build(halfway, replace(SETTINGS, seed=1), 9.0, quiet)


def test_another_profile_starts_at_its_own_beginning(kept, tmp_path):
    keep.resume(tmp_path, kept, replace(SETTINGS, name="full"), quiet)
    assert not list(tmp_path.iterdir())


def test_a_finished_denoiser_ships_and_is_not_kept_twice(halfway, tmp_path):
    kept, work = tmp_path / "kept", tmp_path / "work"
    kept.mkdir()
    keep.build(halfway, kept, quiet)
    (halfway / "pocket").mkdir()
    (halfway / "polish-state.jsonl").write_text('{"step": 4}\n')
    try:
        keep.build(halfway, kept, quiet)
    finally:
        (halfway / "pocket").rmdir()
    assert (kept / "polish-state.jsonl").read_text() == '{"step": 4}\n'
    assert not (kept / "unet-state.safetensors").exists()
    assert (kept / "unet-state.jsonl").read_bytes() == (halfway / "unet-state.jsonl").read_bytes()
    write_shelf(work)
    keep.resume(work, kept, SETTINGS, quiet)
    assert autoencoder.build(work, SETTINGS, 0.0, quiet)
    latents.build(work, SETTINGS, 9.0, quiet)
    assert denoiser.open_trainer(work, SETTINGS)._step == 0
