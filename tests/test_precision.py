"""What a model is called under: its own copy of the images, and IEEE float32, whatever the caller has set."""

import copy
import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import riemannopt_dist as ro
from riemannopt_dist.choices import Precision
from riemannopt_dist.estimators.base import Placed, attribute_together
from riemannopt_dist.estimators.table import ESTIMATORS
from riemannopt_dist.metrics.controls import edge_map
from riemannopt_dist.models.folding import folded
from riemannopt_dist.models.loading import load_model
from riemannopt_dist.objective import (
    Objective,
    Output,
    logits_of,
    output_rounding,
    sample_path,
)
from riemannopt_dist.precision import HALF as HALF_OF
from riemannopt_dist.precision import ieee_float32, relative_rounding, sum_type, use_ieee_float32
from tests.public_calls import EXACT, MAPS, SCORES
from tests.sums import integrate

CALLS = MAPS | SCORES | EXACT
BACKENDS = torch.backends
HALF = (torch.float16, torch.bfloat16)


def network() -> nn.Module:
    """A piecewise-linear network in float32, (B, 3, 6, 6) → (B, 5), sure of what it sees."""
    layers = (nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5))
    generator = torch.Generator().manual_seed(4)
    for parameter in (model := nn.Sequential(*layers).eval()).parameters():
        nn.init.normal_(parameter, generator=generator)
    return model


@pytest.fixture(scope="module")
def small() -> Tensor:
    """The images of the tests in float32."""
    return torch.rand(3, 3, 6, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def classes(small: Tensor) -> Tensor:
    with torch.no_grad():
        return network()(2 * small - 1).argmax(1)


# --- A model that writes into its input ---


class Normalising(nn.Module):
    """A network that normalises its input in place, or not."""

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.network, self.in_place = network(), in_place

    def forward(self, images: Tensor) -> Tensor:
        images = images.sub_(0.5).div_(0.5) if self.in_place else (images - 0.5) / 0.5
        logits: Tensor = self.network(images)
        return logits


def test_every_public_function_that_takes_a_model_is_among_the_calls() -> None:
    takes_a_model = {
        name
        for name in ro.__all__
        if inspect.isfunction(found := getattr(ro, name))
        and {"model", "objective"} & inspect.signature(found).parameters.keys()
    } - {"batches"}  # which asks a model for the shape of its images alone
    assert takes_a_model <= {name.split()[0] for name in CALLS}


@pytest.mark.parametrize("name", list(CALLS))
def test_a_model_may_write_into_its_input(name: str, small: Tensor, classes: Tensor) -> None:
    given = small.clone()
    found = CALLS[name](Normalising(in_place=True).eval(), given, classes, 5)
    assert torch.equal(given, small)
    expected = CALLS[name](Normalising(in_place=False).eval(), small, classes, 5)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9, equal_nan=True)
    assert found.isfinite().all()


def test_samples_are_where_they_say_they_are(small: Tensor, classes: Tensor) -> None:
    path = ro.StraightPath.from_black(small)
    alphas = np.tile([0.25, 1.0], (3, 1))
    for samples in sample_path(
        Objective(Normalising(in_place=True), classes, internal_batch_size=4), path, alphas
    ):
        expected = torch.from_numpy(alphas[samples.rows, samples.columns]).float()[:, None, None, None]
        torch.testing.assert_close(samples.inputs, expected * small[samples.rows])


def test_gradients_pass_through_what_is_written(small: Tensor, classes: Tensor) -> None:
    """Those by hand: half of the logits' and so on; and an input that no copy can be written to."""
    values, gradients = Objective(Normalising(in_place=True), classes, output="logit").gradients(small)
    inputs = small.clone().requires_grad_()
    score = network()((inputs - 0.5) / 0.5).gather(1, classes[:, None])
    (expected,) = torch.autograd.grad(score.sum(), inputs)
    torch.testing.assert_close(gradients, expected)
    torch.testing.assert_close(values, score.detach()[:, 0])
    everywhere = small[:1].expand(4, -1, -1, -1)
    found = Objective(Normalising(in_place=True), classes[:1].repeat(4), output="logit").values(everywhere)
    torch.testing.assert_close(found, values[:1].expand(4))


class InPlaceFirst(nn.Module):
    """A classifier whose first layer overwrites the image itself."""

    input_size = resize_size = 8

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 3))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers(self.norm(images.clamp_(0.4, 0.6)))
        return logits


def in_place_first() -> nn.Module:
    """`InPlaceFirst` with a normalisation that can be folded."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return InPlaceFirst()


def test_folding_compares_networks_on_the_same_image() -> None:
    model = load_model(f"{__name__}:in_place_first", "random")
    assert folded(model) is not model


# --- IEEE float32 ---


def settings() -> tuple[object, ...]:
    """What torch's older settings say, which torch of every version has."""
    return (
        BACKENDS.cudnn.allow_tf32,
        BACKENDS.cuda.matmul.allow_tf32,
        torch.get_float32_matmul_precision(),
    )


IEEE = (False, False, "highest")
TF32 = (True, True, "medium")


def newer_settings() -> tuple[str, ...]:
    """What torch 2.9 and later has for each kind of product."""
    if not hasattr(BACKENDS.cudnn, "conv"):
        return ()
    kinds = (BACKENDS.cudnn.conv, BACKENDS.cudnn.rnn, BACKENDS.cuda.matmul)
    on_cpu = (BACKENDS.mkldnn.conv, BACKENDS.mkldnn.rnn, BACKENDS.mkldnn.matmul)
    return tuple(kind.fp32_precision for kind in (*kinds, *on_cpu))


@pytest.fixture
def rounded() -> Iterator[None]:
    """A caller that lets torch round products, wherever it can."""
    BACKENDS.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("medium")
    yield
    _reset()


def _reset() -> None:
    """Torch's defaults."""
    if hasattr(BACKENDS, "fp32_precision"):
        BACKENDS.fp32_precision = "none"
    BACKENDS.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("highest")
    if hasattr(BACKENDS.cudnn, "conv"):
        BACKENDS.cuda.matmul.fp32_precision = BACKENDS.mkldnn.matmul.fp32_precision = "none"
        BACKENDS.mkldnn.conv.fp32_precision = BACKENDS.mkldnn.rnn.fp32_precision = "none"


class Watched(nn.Module):
    """A network that notes the settings while its logits are computed, and their gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.network = network()
        self.seen: dict[str, set[tuple[object, ...]]] = {"forward": set(), "backward": set()}

    def forward(self, images: Tensor) -> Tensor:
        self.seen["forward"].add(settings())
        logits: Tensor = self.network(images)
        if logits.requires_grad:
            logits.register_hook(lambda _: self.seen["backward"].add(settings()))
            images.register_hook(lambda _: self.seen["backward"].add(settings()))
        return logits


@pytest.mark.usefixtures("rounded")
@pytest.mark.parametrize("name", list(MAPS | SCORES))
def test_products_are_ieee_float32_forward_and_backward(name: str, small: Tensor, classes: Tensor) -> None:
    model, before = Watched().eval(), newer_settings()
    CALLS[name](model, small, classes, 5)
    assert model.seen["forward"] == {IEEE}
    forward_alone = name in SCORES and not name.startswith(("estimate_profile", "audit_maps"))
    assert model.seen["backward"] == (set() if forward_alone else {IEEE})
    assert settings() == TF32
    assert newer_settings() == before


IN_TF32 = (True, True, "high")
SUMS = [("left", False), ("idgi_trapezoid", False), ("softmax_trapezoid", True), ("rescale", False)]


@pytest.mark.parametrize("within", [nullcontext, ieee_float32])
@pytest.mark.parametrize(("estimator", "per_image"), [*SUMS, ("rescale", True)])
def test_a_model_computes_in_tf32_where_that_is_asked_for(
    estimator: str,
    per_image: bool,
    within: Callable[[], AbstractContextManager[None]],
    small: Tensor,
    classes: Tensor,
) -> None:
    """Its own products alone, forward and backward; the maps' sums are of what rounds as float16 does."""
    model, before = Watched().eval(), (settings(), newer_settings())
    profile = ro.estimate_profile(Objective(network(), classes), small, samples=8)
    placed = Placed(6, None if per_image else ro.linear_schedule(6, "trapezoid"), profile)
    objective = Objective(model, classes, precision="tf32")
    path = ro.StraightPath.from_black(small)
    with within():
        inside = (settings(), newer_settings())
        (result,) = attribute_together(objective, path, [(ESTIMATORS[estimator], placed)])
        assert (settings(), newer_settings()) == inside
    assert model.seen == {"forward": {IN_TF32}, "backward": {IN_TF32}}
    assert result.computed_in == torch.float16
    assert (settings(), newer_settings()) == before


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_scores_are_those_of_the_rounded_model(precision: Precision, small: Tensor, classes: Tensor) -> None:
    """Near float32's by the rounding of the type, and not the same; in float32 themselves."""
    exact = Objective(network(), classes, "logit").values(small)
    values = Objective(network(), classes, "logit", precision=precision).values(small)
    eps = torch.finfo(HALF_OF[precision]).eps
    assert values.dtype == torch.float32
    assert 0 < float((values - exact).abs().max()) < 16 * eps * float(exact.abs().max())


class Nearly(nn.Module):
    """The second logit is a hundredth of the images' mean."""

    def forward(self, images: Tensor) -> Tensor:
        mean = images.flatten(1).mean(1)
        return torch.stack([torch.zeros_like(mean), 0.01 * mean], 1)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_is_nothing_is_told_by_the_precision(precision: Precision, small: Tensor) -> None:
    """A logit of 0.005 is a number in float32, and in bfloat16 less than the rounding of logits near 1."""
    objective = Objective(Nearly().eval(), torch.ones(3, dtype=torch.int64), "logit", precision=precision)
    curve = ro.insertion(objective, small, torch.rand(small.shape))
    assert bool(curve.normalized.isnan().all()) == (precision == "bf16")
    assert curve.score.isfinite().all()


def test_a_precision_that_is_none_is_named(small: Tensor, classes: Tensor) -> None:
    with pytest.raises(ValueError, match="precision: expected one of fp32, tf32, fp16, bf16, got 'fp8'"):
        Objective(network(), classes, precision="fp8").check(small)  # type: ignore[arg-type]


class OwnProducts(torch.overrides.TorchFunctionMode):
    """Notes the settings at every convolution and matrix product in float32."""

    NAMES = ("conv2d", "addmm_", "bmm", "baddbmm", "matmul", "__matmul__")

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, set[tuple[object, ...]]] = {}

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func.__name__ in self.NAMES and args[0].dtype == torch.float32:
            self.seen.setdefault(func.__name__, set()).add(settings())
        return func(*args, **(kwargs or {}))


@pytest.mark.usefixtures("rounded")
def test_products_outside_of_the_model_are_too(small: Tensor, classes: Tensor) -> None:
    """Sums, blurs and filters round to ten bits where a model would."""

    class Sums(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1)[:, :5].square()

    with OwnProducts() as found:
        for name in ("integrated_gradients", "idgi blur_ig", "smoothed_insertion", "insertion rise"):
            CALLS[name](Sums().eval(), small, classes, 5)
        edge_map(small)
    assert set(found.seen) >= {"conv2d", "addmm_", "bmm", "baddbmm"}
    assert {state for states in found.seen.values() for state in states} == {IEEE}


@pytest.mark.usefixtures("rounded")
def test_nothing_leaks_between_samples_or_from_a_model_that_fails(small: Tensor, classes: Tensor) -> None:
    path = ro.StraightPath.from_black(small)
    for _ in sample_path(
        Objective(Watched(), classes, internal_batch_size=2), path, np.tile([0.5, 1.0], (3, 1))
    ):
        assert settings() == TF32

    class Failing(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            raise RuntimeError("out of order")

    failing = Objective(Failing(), classes)
    for call in (failing.values, failing.gradients):
        with pytest.raises(RuntimeError, match="out of order"):
            call(small)
        assert settings() == TF32


@pytest.mark.usefixtures("rounded")
def test_threads_share_the_settings_until_the_last_is_done() -> None:
    entered, left = threading.Event(), threading.Event()
    seen = []

    def outlasting() -> None:
        with ieee_float32():
            entered.set()
            left.wait(60)
            seen.append(settings())

    with ieee_float32():
        thread = threading.Thread(target=outlasting)
        thread.start()
        assert entered.wait(60)
    seen.append(settings())
    left.set()
    thread.join()
    assert seen == [IEEE, IEEE]
    assert settings() == TF32


def _everywhere(value: str) -> None:
    BACKENDS.fp32_precision = value


def _conv_alone() -> None:
    BACKENDS.cudnn.conv.fp32_precision = "ieee"


def _new_after_old() -> None:
    torch.set_float32_matmul_precision("high")
    BACKENDS.cuda.matmul.fp32_precision = "ieee"
    BACKENDS.mkldnn.conv.fp32_precision = "bf16"


NEWER: dict[str, Callable[[], None]] = {
    "all tf32": lambda: _everywhere("tf32"),
    "all ieee": lambda: _everywhere("ieee"),
    "conv alone": _conv_alone,
    "new after old": _new_after_old,
}


@pytest.mark.skipif(not hasattr(BACKENDS.cudnn, "conv"), reason="needs torch 2.9")
@pytest.mark.parametrize("state", list(NEWER))
def test_callers_may_use_the_newer_settings_which_contradict_the_older(state: str) -> None:
    NEWER[state]()
    before = newer_settings()
    try:
        with ieee_float32():
            inside = settings(), newer_settings()
        after = newer_settings()
    finally:
        _reset()
    assert inside == (IEEE, ("ieee",) * 6)
    assert after == before
    assert settings() == (True, False, "highest")


def test_a_process_can_be_set_for_good() -> None:
    use_ieee_float32()
    found = settings()
    _reset()
    assert found == IEEE


# --- Half precision, and what rounding is ---


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("name", list(MAPS | SCORES))
def test_half_precision_gives_float32(name: str, dtype: torch.dtype, small: Tensor, classes: Tensor) -> None:
    """Near what float32 computes from the same weights and images: only layers round to 8 or 11 bits.

    But guided walks take other ways when gradients are rounded.
    """
    model, images = Normalising(in_place=False).eval().to(dtype), small.to(dtype)
    found = CALLS[name](model, images, classes, 5)
    expected = CALLS[name](copy.deepcopy(model).float(), images.float(), classes, 5)
    assert found.dtype == expected.dtype
    defined = found.isfinite() & expected.isfinite()
    assert defined.any()  # an information curve needs a gain beyond the type's rounding
    if "guided" not in name and name != "converge_walk":
        difference = (found - expected)[defined].abs().sum() / expected[defined].abs().sum()
        assert difference < 0.25


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("name", ["integrated_gradients", "integrate_path", "converge", "guided_ig"])
def test_sums_in_half_precision_lose_nothing(name: str, dtype: torch.dtype) -> None:
    """The logit of a linear model: a map is w (x − x′), however many terms it is the sum of."""
    generator = torch.Generator().manual_seed(2)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 2)).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, generator=generator)
    model = model.to(dtype)
    images = torch.rand(2, 3, 4, 4, generator=generator).to(dtype)
    targets = torch.tensor([0, 1])
    path = ro.StraightPath.from_black(images)
    points = ro.linear_schedule(65, "trapezoid")
    settings = {"output": "logit", "internal_batch_size": 1}
    (result,) = {
        "integrated_gradients": lambda: ro.integrate_path(
            ro.Objective(model, targets, **settings), path, [points]
        ),
        "integrate_path": lambda: integrate(model, path, targets, [], softmax=[points], **settings),
        "converge": lambda: [ro.converge(ro.Objective(model, targets, **settings), path, 64)],
        "guided_ig": lambda: [ro.guided_ig(model, images, targets, points, **settings)],
    }[name]()
    weights = model[1].weight.detach()[targets].view_as(images).float()
    torch.testing.assert_close(result.maps, weights * images.float(), rtol=2e-5, atol=1e-6)


def test_sums_are_as_wide_as_float32_at_least() -> None:
    wide = {torch.float16: torch.float32, torch.bfloat16: torch.float32}
    for dtype in (*HALF, torch.float32, torch.float64):
        assert sum_type(dtype) == wide.get(dtype, dtype)


@pytest.mark.parametrize("output", ["probability", "logit"])
def test_a_real_networks_outputs_differ_between_batches_by_less_than_the_rounding(
    classifier: nn.Module, photos: Tensor, output: Output
) -> None:
    """All classes, likely or not; and the rounding is no wider than a hundred times what is seen."""
    with torch.no_grad():
        parts = [torch.cat([logits_of(classifier, p) for p in photos.split(size)]) for size in (1, 2, 4)]
    values = torch.stack(parts).softmax(2) if output == "probability" else torch.stack(parts)
    differences = values.amax(0) - values.amin(0)
    allowed = output_rounding(values.abs().amax(0), torch.float32, output)
    assert (differences <= allowed).all()
    assert (differences > allowed / 100).any()


@pytest.mark.parametrize(("dtype", "part"), [(torch.float64, 6e-14), (torch.float32, 3.1e-5)])
def test_rounding_is_relative_to_a_probability_and_to_one_for_a_small_logit(
    dtype: torch.dtype, part: float
) -> None:
    sizes = torch.tensor([1e-9, 0.5, 20.0], dtype=torch.float64)
    assert relative_rounding(dtype) == pytest.approx(part, rel=0.06)
    unit = relative_rounding(dtype)
    torch.testing.assert_close(output_rounding(sizes[:2], dtype), unit * sizes[:2])
    one = torch.ones(1, dtype=torch.float64)
    torch.testing.assert_close(
        output_rounding(sizes, dtype, "logit"), unit * torch.cat([one, one, sizes[2:]])
    )
