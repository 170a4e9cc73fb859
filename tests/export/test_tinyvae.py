"""A tiny autoencoder is read from each form it comes in, and computes what TAESD computes."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from export import Ingredients, MissingError, SourceError
from export.companion_modules import load_companion
from tests.export.companion_files import tiny_vae, write_taesd

PARTS = ["tiny_vae_decoder", "tiny_vae_encoder"]


def opened(checkpoint, place):
    return Ingredients(source=checkpoint, tiny_vae=place).open()


def added(checkpoint):
    names = [part.name for part in checkpoint.recipe.components]
    return [name for name in names if name.startswith("tiny")]


@pytest.mark.parametrize("named", ["taesd_decoder.safetensors", "taesd_encoder.safetensors", ""])
def test_the_original_files_compute_the_same(tiny_checkpoint, tmp_path, named):
    encoder, decoder = write_taesd(tmp_path)
    checkpoint = opened(tiny_checkpoint, tmp_path / named)
    assert added(checkpoint) == PARTS
    net = load_companion(checkpoint, "tiny_vae")
    draw = torch.Generator().manual_seed(1)
    latents = 3 * torch.randn((2, 4, 5, 7), generator=draw)
    picture = torch.rand((1, 3, 40, 56), generator=draw)
    with torch.inference_mode():
        # diffusers' pictures are in -1..1, the original's in 0..1.
        torch.testing.assert_close(net.decode(latents).sample, decoder(latents) * 2 - 1)
        torch.testing.assert_close(net.encode(picture * 2 - 1).latents, encoder(picture))


def test_the_decoder_alone_is_enough(tiny_checkpoint, tmp_path):
    _, decoder = write_taesd(tmp_path)
    (tmp_path / "taesd_encoder.safetensors").unlink()
    checkpoint = opened(tiny_checkpoint, tmp_path / "taesd_decoder.safetensors")
    assert added(checkpoint) == PARTS[:1]
    latents = torch.randn((1, 4, 4, 4), generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        got = load_companion(checkpoint, "tiny_vae").decode(latents).sample
        torch.testing.assert_close(got, decoder(latents) * 2 - 1)


def test_the_halves_are_told_by_their_weights_not_by_their_names(tiny_checkpoint, tmp_path):
    write_taesd(tmp_path)
    (tmp_path / "taesd_encoder.safetensors").unlink()
    (tmp_path / "taesd_decoder.safetensors").rename(tmp_path / "my encoder.safetensors")
    assert added(opened(tiny_checkpoint, tmp_path / "my encoder.safetensors")) == PARTS[:1]


@pytest.mark.parametrize("form", ["folder", "file in it", "file alone"])
def test_diffusers_forms_are_read(tiny_checkpoint, tmp_path, form):
    theirs = tiny_vae(3, scaling_factor=1.0 if form == "file alone" else 2.5)
    theirs.save_pretrained(tmp_path / "taesd")
    place = tmp_path / "taesd"
    if form != "folder":
        place /= "diffusion_pytorch_model.safetensors"
    if form == "file alone":
        (tmp_path / "taesd/config.json").unlink()
    checkpoint = opened(tiny_checkpoint, place)
    assert added(checkpoint) == PARTS
    assert checkpoint.configs["tiny_vae"]["scaling_factor"] == theirs.config.scaling_factor
    latents = torch.randn((1, 4, 4, 4), generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        got = load_companion(checkpoint, "tiny_vae").decode(latents).sample
        torch.testing.assert_close(got, theirs.decode(latents).sample)


def test_its_files_are_part_of_the_fingerprint(tiny_checkpoint, tmp_path):
    write_taesd(tmp_path)
    origins = opened(tiny_checkpoint, tmp_path).pieces.origins
    assert {"--tiny-vae taesd_decoder.safetensors", "--tiny-vae taesd_encoder.safetensors"} <= set(
        origins
    )


def test_another_number_of_latent_channels_is_refused(tiny_checkpoint, tmp_path):
    write_taesd(tmp_path / "sd3", latents=16)
    tiny_vae(3, latent_channels=16).save_pretrained(tmp_path / "flux")
    for place in (tmp_path / "sd3", tmp_path / "flux"):
        with pytest.raises(SourceError, match="has 16 latent channels; 4 are needed"):
            opened(tiny_checkpoint, place)


def test_another_number_of_resolutions_is_refused(tiny_checkpoint, tmp_path):
    tiny_vae(3, decoder_block_out_channels=(8, 8, 8), num_decoder_blocks=(1, 1, 1)).save_pretrained(
        tmp_path / "short"
    )
    with pytest.raises(SourceError, match="has 3 resolutions; 4 are needed"):
        opened(tiny_checkpoint, tmp_path / "short")


def test_what_is_no_tiny_autoencoder_is_refused(tiny_checkpoint, tmp_path):
    def refused(place, said, kind=SourceError):
        with pytest.raises(kind, match=said):
            opened(tiny_checkpoint, place)

    refused(tiny_checkpoint / "vae", "is of class 'AutoencoderKL'; AutoencoderTiny is needed")
    refused(tiny_checkpoint / "vae/diffusion_pytorch_model.safetensors", "is no tiny autoencoder")
    refused(tiny_checkpoint, "has neither config.json nor one TAESD decoder", MissingError)
    refused(tmp_path / "gone", "there is no tiny autoencoder 'gone'", MissingError)
    (tmp_path / "taesd_decoder.pth").write_bytes(b"x")
    refused(tmp_path / "taesd_decoder.pth", "is a pickle")
    write_taesd(tmp_path / "one")
    (tmp_path / "one/taesd_decoder.safetensors").unlink()
    refused(tmp_path / "one/taesd_encoder.safetensors", "has no decoder")


def test_weights_that_are_missing_or_too_many_are_named(tiny_checkpoint, tmp_path):
    write_taesd(tmp_path)
    file = tmp_path / "taesd_decoder.safetensors"
    weights = load_file(file)
    save_file(weights | {"18.extra": torch.zeros(1)}, file)
    from export.parameters import matched
    from export.recipes import SD1

    assert SD1.components  # the family's own recipe is not changed
    checkpoint = opened(tiny_checkpoint, file)
    part = next(p for p in checkpoint.recipe.components if p.name == "tiny_vae_decoder")
    from export.modules import parameter_shapes

    shapes = parameter_shapes(part, checkpoint.configs["tiny_vae"])
    with pytest.raises(SourceError, match=r"decoder\.layers\.17\.extra"):
        matched(part, shapes, checkpoint.tensors["tiny_vae"])
    del weights["19.bias"]
    save_file(weights, file)
    checkpoint = opened(tiny_checkpoint, file)
    with pytest.raises(SourceError, match=r"decoder\.layers\.18\.bias"):
        matched(part, shapes, checkpoint.tensors["tiny_vae"])


def test_a_spoilt_configuration_is_one_sentence(tiny_checkpoint, tmp_path):
    tiny_vae(3).save_pretrained(tmp_path / "taesd")
    config = tmp_path / "taesd/config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"latent_channels": "4"}))
    with pytest.raises(SourceError, match=r"in 'taesd': .*latent_channels"):
        opened(tiny_checkpoint, tmp_path / "taesd")


def test_the_export_process_is_told_of_it(tiny_checkpoint, tmp_path):
    given = Ingredients(source=tiny_checkpoint, tiny_vae=tmp_path / "taesd")
    assert Ingredients.from_job(json.loads(json.dumps(given.job()))) == given
