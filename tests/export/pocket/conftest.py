from dataclasses import replace

import pytest
import torch

from export.pocket.pictures import open_shelf
from export.pocket.settings import AutoencoderPlan, DenoiserPlan, profile
from tests.export.pocket.drawn_shelf import write_shelf


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Two threads stall when anything else runs, and these networks are too small for them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def settings():
    """The smallest networks that have every part."""
    return replace(
        profile("smoke"),
        warmup_steps=1,
        autoencoder=AutoencoderPlan(
            channels=(8, 8, 8, 16),
            crop=32,
            crop_steps=2,
            crop_batch=2,
            whole_steps=1,
            decoder_steps=2,
            whole_batch=2,
        ),
        denoiser=DenoiserPlan(
            channels=(16, 32), heads=(2, 2), groups=4, text_layers=1, steps=4, batch=8
        ),
    )


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder of the module's own: which files share a process is not known."""
    folder = tmp_path_factory.mktemp("work")
    write_shelf(folder)
    return folder


@pytest.fixture(scope="module")
def shelf(work, settings):
    return open_shelf(work, settings)
