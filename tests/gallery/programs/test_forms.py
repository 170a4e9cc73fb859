"""What programs send: read exactly, refused in one sentence, and never a fault of ours."""

import base64
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from safelight.exits import ApplicationError, UsageError
from safelight.gallery.programs import a1111, images
from safelight.gallery.programs.multipart import MAX_PARTS, parse_multipart

KIND = 'multipart/form-data; boundary="a b:1"'


def form(*parts):
    lines = b""
    for name, data in parts:
        head = f'--a b:1\r\nContent-Disposition: form-data; name="{name}"; filename="x"\r\n'
        lines += head.encode() + b"Content-Type: image/png\r\n\r\n" + data + b"\r\n"
    return lines + b"--a b:1--\r\n"


def said_of(function, *given):
    """Give what is said when it refuses, or nothing; any other error fails the test."""
    try:
        function(*given)
    except ApplicationError as error:
        return str(error)
    return ""


def picture(mode="RGB", size=(16, 8), colour=0):
    buffer = io.BytesIO()
    Image.new(mode, size, colour).save(buffer, "PNG")
    return buffer.getvalue()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=60), min_size=1, max_size=4))
def test_a_form_gives_the_bytes_that_were_sent(contents):
    contents = [data for data in contents if b"\r\n--a b:1" not in b"\r\n" + data]
    parts = [(f"n{k}", data) for k, data in enumerate(contents)]
    if parts:
        assert [(part.name, part.data) for part in parse_multipart(KIND, form(*parts))] == parts


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200), st.text(max_size=60), st.integers(0, 60))
def test_any_other_body_is_refused_in_one_sentence(tail, kind, cut):
    whole = form(("image", b"data"))
    for content_type in (KIND, kind, "multipart/form-data", "multipart/form-data; boundary="):
        for body in (tail, whole[:-cut], whole[:40] + tail + whole[40:]):
            assert "\n" not in said_of(parse_multipart, content_type, body)


def test_a_form_has_an_end_and_not_too_many_fields():
    with pytest.raises(UsageError, match="no whole form"):
        parse_multipart(KIND, form(*[("n", b"")] * (MAX_PARTS + 1)))
    with pytest.raises(UsageError, match="no whole form"):
        parse_multipart(KIND, form(("n", b"x"))[:-6])
    with pytest.raises(UsageError, match="no name"):
        parse_multipart(KIND, form(("n", b"x")).replace(b'name="n"; ', b""))


def test_a_whole_request_of_the_web_interface():
    order = a1111.order_from(
        {
            "prompt": "a",
            "seed": -1,
            "steps": 20.0,
            "cfg_scale": 7,
            "sampler_index": "Euler a",
            "scheduler": "Automatic",
            "batch_size": 2,
            "n_iter": 3,
            "subseed": 5,
            "subseed_strength": 0.25,
            "enable_hr": True,
            "hr_scale": 1.5,
            "hr_upscaler": "Latent (nearest)",
            "denoising_strength": 0.5,
            "override_settings": {"CLIP_stop_at_last_layers": 2, "sd_model_checkpoint": "other"},
            "alwayson_scripts": {},
            "width": None,
            "unknown": 1,
        },
        "pocket",
    )
    assert order.model == "other"
    assert order.fields == {
        "prompt": "a",
        "steps": 20,
        "guidance_scale": 7.0,
        "sampler": "euler_a",
        "count": 6,
        "batch_size": 2,
        "variation_seed": 5,
        "variation_strength": 0.25,
        "clip_skip": 2,
        "hires_scale": 1.5,
        "hires_upscaler": "latent",
        "hires_strength": 0.5,
    }


def test_a_picture_and_a_mask_of_the_web_interface():
    mask = Image.new("L", (16, 8), 0)
    mask.paste(255, (0, 0, 4, 8))
    buffer = io.BytesIO()
    mask.save(buffer, "PNG")
    text = "data:image/png;base64," + base64.b64encode(picture(colour=(9, 9, 9))).decode()
    payload = {
        "init_images": [text],
        "mask": base64.b64encode(buffer.getvalue()).decode(),
        "inpainting_mask_invert": 1,
        "denoising_strength": 0.6,
        "width": 32,
        "height": 8,
    }
    order = a1111.order_from(payload, "pocket")
    assert order.canvas.init.shape == (8, 32, 3)
    assert order.canvas.mask.shape == (8, 32)
    assert (order.canvas.mask[0, 0], order.canvas.mask[0, 31]) == (0, 255)
    assert (order.fields["strength"], order.fields["mask_blur"]) == (0.6, 4)


@pytest.mark.parametrize(
    "wrong",
    [
        {"styles": ["x"]},
        {"alwayson_scripts": {"controlnet": {}}},
        {"override_settings": 3},
        {"override_settings": {"sd_model_checkpoint": 3}},
        {"steps": 1.5},
        {"steps": True},
        {"prompt": 3},
        {"width": "64"},
        {"init_images": ["x"]},
        {"init_images": ["!"]},
        {"init_images": [3]},
        {"init_images": ["", ""]},
        {"init_images": "x"},
        {"init_images": [base64.b64encode(picture()).decode()], "width": 99_999},
        {"enable_hr": True, "hr_upscaler": "ESRGAN"},
    ],
)
def test_what_the_web_interface_could_and_we_cannot(wrong):
    with pytest.raises(UsageError) as said:
        a1111.order_from({"prompt": "x"} | wrong, "pocket")
    assert "\n" not in str(said.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
A1111_KEYS = [
    "prompt",
    "steps",
    "seed",
    "sampler_name",
    "scheduler",
    "init_images",
    "mask",
    "width",
]
A1111_KEYS += ["override_settings", "batch_size", "enable_hr", "hr_upscaler", "subseed_strength"]
OPENAI_KEYS = ["prompt", "n", "size", "model", "response_format", "output_format", "stream", "seed"]


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(A1111_KEYS), JSON))
def test_any_payload_is_an_order_or_a_sentence(payload):
    assert "\n" not in said_of(a1111.order_from, payload, "pocket")


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(OPENAI_KEYS), JSON))
def test_any_image_request_is_an_order_or_a_sentence(payload):
    assert "\n" not in said_of(images.wanted_format, payload)
    assert "\n" not in said_of(images.order_from, payload, ["pocket"], "pocket")


def test_an_edit_paints_what_is_transparent():
    half = Image.new("RGBA", (16, 8), (1, 2, 3, 255))
    half.paste((0, 0, 0, 0), (0, 0, 8, 8))
    buffer = io.BytesIO()
    half.save(buffer, "PNG")
    parts = parse_multipart(KIND, form(("image", buffer.getvalue()), ("prompt", b"a"), ("n", b"2")))
    fields, canvas = images.edit_from(parts)
    assert fields == {"prompt": "a", "n": 2}
    assert np.array_equal(canvas.mask, np.repeat([[255] * 8 + [0] * 8], 8, 0))
    order = images.order_from(fields, ["pocket"], "pocket", canvas)
    assert order.fields == {"prompt": "a", "count": 2, "strength": 1.0}
    for bad in (
        [("image", picture())] * 2,
        [("prompt", b"x")],
        [("image", b"no picture")],
        [("image", picture()), ("mask", picture())],
        [("image", picture()), ("mask", picture("RGBA", (8, 8)))],
        [("image", picture()), ("prompt", b"\xff")],
    ):
        with pytest.raises(UsageError):
            images.edit_from(parse_multipart(KIND, form(*bad)))
