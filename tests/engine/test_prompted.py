"""What a prompt's signs do to a picture: schedules, alternation, AND and weights, end to end.

On pocket's bundle with the shipped fake, beside a loop that is written out here.
"""

from pathlib import Path

import numpy as np
import pytest
from transformers import CLIPTokenizer

import safelight
from engine import Bundle, FakeBackend, Picture, Pipeline, RequestError
from engine.denoiser import Denoiser
from engine.loop import integrate
from engine.noise import noise_source
from engine.pixels import to_pixels
from engine.samplers import tabulate
from engine.texts import plan_texts

POCKET = Path(safelight.__file__).parent / "models" / "pocket"
SIDE = 64  # pixels


@pytest.fixture(scope="module")
def bundle():
    return Bundle.open(POCKET, hash_cache=None)


@pytest.fixture(scope="module")
def tokenizer(bundle):
    return bundle.tokenizers()[0]


def request(bundle, prompt, **given):
    settings = {"seed": 7, "steps": 6, "width": SIDE, "height": SIDE, "sampler": "dpmpp_2m"}
    return bundle.request(prompt=prompt, **(settings | given))


def pixels(bundle, prompt, **given):
    events = Pipeline(bundle, FakeBackend()).generate(request(bundle, prompt, **given))
    (picture,) = (event for event in events if isinstance(event, Picture))
    return picture.pixels


def by_hand(bundle, texts_at, weights=(1.0,), **given):
    """Draw with the texts, the unconditional one first, that `texts_at` names for each step."""
    asked = request(bundle, "unused", **given)
    (tokenizer,), fake = bundle.tokenizers(), FakeBackend()
    limit, latent = bundle.manifest.token_limit, (1, 4, SIDE // 8, SIDE // 8)
    encoder = fake.load(POCKET / "text_encoder", {"input_ids": (1, limit)})

    def embeds(text):
        return encoder.run({"input_ids": tokenizer.encode(text)})[0].copy()

    def predict(x, moment):
        hidden = np.stack([embeds(text) for text in texts_at(moment.step)])
        halves = len(hidden)
        shapes = {"sample": (halves, *latent[1:]), "timestep": ()}
        unet = fake.load(POCKET / "unet", shapes | {"encoder_hidden_states": hidden.shape})
        sample = np.repeat(x, halves, axis=0)
        timestep = np.float32(moment.timestep)
        return unet.run(
            {"sample": sample, "timestep": timestep, "encoder_hidden_states": hidden}
        ).copy()

    table = tabulate(asked.sampler, bundle.training, asked.schedule, asked.steps, asked.eta)
    denoiser = Denoiser(
        predict, bundle.manifest.prediction_type, asked.guidance_scale, weights=weights
    )
    noise = noise_source(asked.noise, asked.seed)
    *_, (_, latents, _) = integrate(table, noise, np.zeros(latent, np.float32), denoiser)
    decoder = fake.load(POCKET / "vae_decoder", {"latent_sample": latent})
    scaled = latents / np.float32(bundle.manifest.scaling_factor)
    return to_pixels(decoder.run({"latent_sample": scaled}))


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "heun", "euler_a"])  # heun asks twice a step
@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        ("[red apple:blue cat:0.5]", ["red apple"] * 3 + ["blue cat"] * 3),
        ("red [apple::2]", ["red apple"] * 2 + ["red"] * 4),
        ("[red|blue] cat", ["red cat", "blue cat"] * 3),
    ],
    ids=["switch", "fade", "alternation"],
)
def test_a_schedule_equals_a_loop_that_swaps_the_texts(bundle, sampler, prompt, texts):
    drawn = pixels(bundle, prompt, sampler=sampler)
    assert np.array_equal(drawn, by_hand(bundle, lambda n: ("", texts[n]), sampler=sampler))
    assert not np.array_equal(drawn, pixels(bundle, texts[0], sampler=sampler))


def test_the_negative_prompt_changes_as_well_and_has_no_and(bundle):
    drawn = pixels(bundle, "red apple", negative_prompt="[leaf:stem:4]")
    negatives = ["leaf"] * 4 + ["stem"] * 2
    assert np.array_equal(drawn, by_hand(bundle, lambda n: (negatives[n], "red apple")))
    joined = pixels(bundle, "red apple", negative_prompt="leaf AND stem")
    assert np.array_equal(joined, by_hand(bundle, lambda _: ("leaf AND stem", "red apple")))


def test_and_pulls_towards_each_part_by_its_weight(bundle):
    drawn = pixels(bundle, "red apple AND [blue|green] cat :0.5 AND leaf :-0.25")
    cats = ["blue cat", "green cat"] * 3
    wanted = by_hand(bundle, lambda n: ("", "red apple", cats[n], "leaf"), (1.0, 0.5, -0.25))
    assert np.array_equal(drawn, wanted)


def test_one_part_alone_is_the_prompt_without_and(bundle):
    plain = pixels(bundle, "red apple")
    # Both differ by a part that pulls with nothing, and by one that is the whole pull.
    assert np.array_equal(pixels(bundle, "red apple AND blue cat :0"), plain)
    assert not np.array_equal(pixels(bundle, "red apple AND blue cat :0.1"), plain)
    halves = pixels(bundle, "red apple :0.5 AND red apple :0.5").astype(int)
    assert abs(halves - plain).max() <= 1  # rounding: the pull is added up in two pieces


def test_and_without_guidance_still_has_something_to_pull_from(bundle):
    drawn = pixels(bundle, "red apple AND leaf :0.5", guidance_scale=1.0)
    wanted = by_hand(bundle, lambda _: ("", "red apple", "leaf"), (1.0, 0.5), guidance_scale=1.0)
    assert np.array_equal(drawn, wanted)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("red apple", "(red:1.0) apple", True),
        ("red apple", "red ([apple])", True),
        ("red apple", "(red) apple", False),
        ("(red) apple", "(red:1.1) apple", True),
        ("red apple", "red BREAK apple", False),
        ("red apple", "[red apple|red apple]", True),
    ],
)
def test_weights_and_breaks(bundle, one, other, same):
    assert np.array_equal(pixels(bundle, one), pixels(bundle, other)) == same


def test_plain_syntax_takes_signs_for_text(bundle):
    prompt = "(red:1.5) [apple|cat] AND leaf"
    wanted = by_hand(bundle, lambda _: ("", prompt))
    assert np.array_equal(pixels(bundle, prompt, prompt_syntax="plain"), wanted)
    assert not np.array_equal(pixels(bundle, prompt), wanted)


def test_a_clip_skip_that_pocket_does_not_give_is_refused_at_once(bundle):
    pipeline = Pipeline(bundle, FakeBackend())
    with pytest.raises(RequestError, match="clip skip of 2"):
        pipeline.generate(request(bundle, "a canary", clip_skip=2))


def test_runs_are_tokenised_as_the_reference_does_each_by_itself(bundle, tokenizer):
    reference = CLIPTokenizer.from_pretrained(POCKET / "tokenizer")
    asked = request(bundle, r"studio\(s\), (red  apple:1.3)s [Don't] BREAK 猫")
    (text,) = plan_texts(asked, 6, [tokenizer], guided=False).different
    wanted, weights = [], []
    for passage in (
        [("studio(s), ", 1.0), ("red  apple", 1.3), ("s ", 1.0), ("Don't", 0.909091)],
        [("猫", 1.0)],
    ):
        ids = [
            (each, weight)
            for words, weight in passage
            for each in reference(words, add_special_tokens=False)["input_ids"]
        ]
        pad = [(reference.pad_token_id, 1.0)] * (tokenizer.limit - 2 - len(ids))
        row = [(reference.bos_token_id, 1.0), *ids, (reference.eos_token_id, 1.0), *pad]
        wanted.append([each for each, _ in row])
        weights.append([weight for _, weight in row])
    assert text.ids[0].tolist() == wanted
    assert np.array_equal(text.weights[0], np.array(weights, dtype=np.float32))


def test_a_long_weighted_text_fills_chunk_after_chunk(bundle, tokenizer):
    asked = request(bundle, "red " * 20 + "(apple:1.5) " * 20)
    (text,) = plan_texts(asked, 6, [tokenizer], guided=False).different
    plain = tokenizer.encode("red " * 20 + "apple " * 20)
    assert np.array_equal(text.ids[0], plain)
    apple = tokenizer.encode("apple")[0, 1]
    assert np.array_equal(text.weights[0] == 1.5, plain == apple)
