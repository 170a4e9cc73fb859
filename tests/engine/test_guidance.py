"""The embedded guidance scale equals the one that diffusers tells its networks."""

import numpy as np
import pytest
import torch
from diffusers import LatentConsistencyModelPipeline

from engine.guidance import guidance_embedding


@pytest.mark.parametrize("dim", [4, 7, 256])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1.5, 8.0])
def test_it_equals_diffusers(scale, dim):
    theirs = LatentConsistencyModelPipeline.get_guidance_scale_embedding(
        None, torch.tensor([scale - 1.0]), embedding_dim=dim
    )
    # The angle is up to 7000, of which float32 holds the fourth decimal.
    np.testing.assert_allclose(guidance_embedding(scale, dim), theirs.numpy(), atol=1e-3)


def test_it_is_one_row_of_float32_that_tells_scales_apart():
    one, other = guidance_embedding(7.5, 256), guidance_embedding(8.0, 256)
    assert (one.dtype, one.shape) == (np.float32, (1, 256))
    assert np.abs(one - other).max() > 0.5
