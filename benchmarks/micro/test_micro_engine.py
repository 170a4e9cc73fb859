"""The engine's own work, without a network: what remains when computing is free."""

from typing import Any

import numpy as np
import pytest

from engine import Bundle, FakeBackend, Pipeline
from engine.noise import noise_source
from engine.samplers import tabulate
from engine.tiling import decode_tiled

PROMPT = "a (red:1.2) apple on a [wooden|marble] table, soft light, detailed, close " * 8


def test_tokenizer(benchmark: Any, bundle: Bundle) -> None:
    (tokenizer,) = bundle.tokenizers()
    ids = benchmark(tokenizer.encode, PROMPT)
    assert len(ids) > 1


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "unipc", "dpmpp_sde"])
def test_sampler_table(benchmark: Any, bundle: Bundle, sampler: str) -> None:
    table = benchmark(tabulate, sampler, bundle.training, "karras", 50, 1.0)
    assert len(table.steps) >= 50


@pytest.mark.parametrize("name", ["torch", "philox"])
def test_noise_of_sdxl(benchmark: Any, name: str) -> None:
    drawn = benchmark(lambda: noise_source(name, 7).normal((1, 4, 128, 128)))
    assert drawn.shape == (1, 4, 128, 128)


def test_loop_of_twenty_steps(benchmark: Any, bundle: Bundle) -> None:
    pipeline = Pipeline(bundle, FakeBackend())
    request = bundle.request(prompt="red apple", seed=1, steps=20)
    events = benchmark(lambda: list(pipeline.generate(request)))
    assert len(events) == 21


def test_tiles_of_2048(benchmark: Any) -> None:
    latents = np.random.default_rng(0).standard_normal((1, 4, 256, 256), dtype=np.float32)

    def decode(tile: Any) -> Any:
        return np.broadcast_to(tile[:, :3].repeat(8, 2).repeat(8, 3), (1, 3, 512, 512))

    picture = benchmark.pedantic(decode_tiled, (latents, decode), rounds=5, warmup_rounds=1)
    assert picture.shape == (1, 3, 2048, 2048)
