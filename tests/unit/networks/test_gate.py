"""The conditions of an inversion: each fault has a message of its own, and no ordinary network is refused."""

import re

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from netsim.errors import NetworkError
from netsim.inversion.invert import invert_images
from netsim.networks import as_network
from netsim.networks.gate import require_dtype, two_images
from support.classifiers import Classifier, images


def changed(**methods):
    """A Classifier of which some methods are others."""
    torch.manual_seed(0)
    return type("Changed", (Classifier,), methods)()


def features(self, x):
    return self.hidden(self.features(x).flatten(1)).relu()


def through(change):
    """A Classifier that changes its representation."""
    return changed(forward=lambda self, x: self.out(change(self, features(self, x))))


class BatchRange(Classifier):
    def forward(self, x):
        return super().forward((x - x.min()) / (x.max() - x.min()))


class Attending(Classifier):
    """Attention over the batch: what is meant to be (batch, tokens, width) is (tokens, batch, width)."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(12, 2)

    def forward(self, x):
        z = features(self, x)[:, None]
        return self.out(self.attention(z, z, z)[0][:, 0])


def live_norm():
    model = Classifier()
    model.features[1] = nn.BatchNorm2d(8, track_running_stats=False)
    return model


BATCH = "must represent each image by itself, whatever else is in the batch, got "


@pytest.mark.parametrize(
    ("model", "got"),
    [
        (live_norm(), "representations that change by .* Give BatchNorm its running statistics"),
        (BatchRange(), "representations that change by"),
        (Attending(), "representations that change by"),
        (through(lambda _, z: z - z.mean(0)), "representations that change by"),
        (through(lambda _, z: z + z[:1]), "representations that change by"),
        (through(lambda _, z: z + z[-1:]), "representations that change by"),
        (through(lambda _, z: z.cumsum(0)), "representations that change by"),
        (through(lambda _, z: nn.functional.normalize(z, dim=0)), "representations that change by"),
        (through(lambda _, z: z + torch.arange(len(z))[:, None]), "representations that change by"),
        (
            through(lambda _, z: nn.functional.batch_norm(z, None, None, training=True)),
            "ValueError: Expected more than",
        ),
        (through(lambda _, z: z.squeeze()), r"shape \(12,\) instead of \(1, 12\) .* flatten\(1\)"),
    ],
)
def test_images_of_a_batch_that_see_each_other_are_noticed(model, got):
    with pytest.raises(NetworkError, match=f"^{model._get_name().lower()} {BATCH}{got}"):
        as_network(model, images(2))


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0, None])
def test_one_image_of_whatever_content_is_enough_to_notice_it(count, value):
    given = images(count) if value is None else torch.full((count, 3, 16, 16), value)
    with pytest.raises(NetworkError, match=BATCH):
        as_network(live_norm(), given)


@pytest.mark.parametrize("given", [torch.zeros(1, 1, 8, 8), torch.ones(1, 3, 5, 4), torch.rand(1, 3, 16, 16)])
def test_the_two_images_differ_in_content_and_brightness_and_are_images(given):
    first, second = two_images(given)
    assert torch.equal(first, given[0]) and second.min() >= 0 and second.max() <= 1
    assert abs(float(first.mean() - second.mean())) > 0.05 and (first - second).std() > 0.05


def always_on(model):
    model.drop = changed_mode(nn.Dropout(0.5))
    return model


def changed_mode(dropout):
    dropout.forward = lambda x: nn.functional.dropout(x, dropout.p, training=True)
    return dropout


def counting(self, z):
    self.passes = getattr(self, "passes", 0) + 1
    return z * self.passes


@pytest.mark.parametrize(
    "model",
    [
        always_on(Classifier()),
        through(lambda _, z: z + torch.rand_like(z)),
        through(counting),
        changed(forward=lambda self, x: nn.functional.dropout(self.out(features(self, x)), 0.5, training=True)),
    ],
    ids=["dropout", "noise", "counter", "dropout of logits"],
)
def test_what_differs_between_two_passes_is_no_question_of_heads(model):
    with pytest.raises(NetworkError, match="must be deterministic: two forward passes of the same images"):
        as_network(model, images(2))


def counts(kind):
    class Counts(Classifier):
        def __init__(self):
            super().__init__()
            self.register_buffer("passes", torch.zeros(()))

        def forward(self, x):
            kind(self)
            return super().forward(x)

    return Counts()


def rebinds(self):
    self.passes = self.passes + 1


def writes_a_weight(self):
    self.hidden.weight.mul_(0.9)


@pytest.mark.parametrize(
    ("change", "name"),
    [(lambda self: self.passes.add_(1), "passes"), (rebinds, "passes"), (writes_a_weight, "hidden.weight")],
    ids=["in place", "anew", "a weight"],
)
def test_a_pass_that_changes_weights_or_buffers_is_noticed(change, name):
    with pytest.raises(
        NetworkError, match=f"must not change its weights or buffers .* got changes of {name} by|of {name}\\."
    ):
        as_network(counts(change), images(2))


def test_buffers_that_a_pass_only_rewrites_or_caches_are_no_change():
    def cache(self):
        self.passes = torch.zeros(())
        self.register_buffer("mask", torch.ones(3), persistent=False)

    assert as_network(counts(cache), images(2)).width == 12


class Reentrant(Classifier):
    def forward(self, x):
        return self.out(checkpoint(lambda y: features(self, y), x, use_reentrant=True))


class Inference(Classifier):
    @torch.inference_mode()
    def inner(self, x):
        return features(self, x)

    def forward(self, x):
        return self.out(self.inner(x))


class NoGradient(Inference):
    @torch.no_grad()
    def inner(self, x):
        return features(self, x)


class Viewed(Classifier):
    """It works without gradients only."""

    def forward(self, x):
        return self.out(torch.from_numpy(features(self, x).numpy()))


SLOPE = r"must be differentiable with respect to images by torch\.autograd\.grad, got "


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize(
    ("model", "got"),
    [
        (Reentrant(), "a re-entrant checkpoint. Call torch.utils.checkpoint.checkpoint with use_reentrant=False"),
        (Inference(), "no gradient. Remove no_grad, inference_mode and detach"),
        (NoGradient(), "no gradient. Remove no_grad"),
        (through(lambda _, z: z.detach()), "no gradient. Remove no_grad"),
        (through(lambda _, z: z.detach().requires_grad_()), "no gradient. Remove no_grad"),
        (Viewed(), "RuntimeError: Can't call numpy"),
        (
            through(lambda _, z: nn.functional.silu(z.relu(), inplace=True)),
            "an in-place change of a value that the gradient needs. Give layers .* inplace=False",
        ),
        (through(lambda _, z: (100 * z).round()), "a gradient of zero everywhere. Remove rounding"),
        (through(lambda _, z: torch.sign(torch.sin(1000 * z))), "a gradient of zero everywhere"),
    ],
)
def test_what_has_no_gradient_is_noticed(model, got):
    with pytest.raises(NetworkError, match=SLOPE + got):
        as_network(model, images(2))


def test_logits_of_several_vectors_that_are_averaged_are_those_of_their_average():
    """The last layer then runs on (n, tokens, d), but computes the logits from the mean."""
    model = changed(
        forward=lambda self, x: self.out(torch.stack([features(self, x), -2 * features(self, x)], 1)).mean(1)
    )
    network, x = as_network(model, images(2)), images(3)
    assert torch.allclose(network(x), model.eval()(x), atol=1e-6) and network.represent(x).shape == (3, 12)
    live = changed(
        forward=lambda self, x: self.out(torch.stack([features(self, x)] * 2, 1) - features(self, x).mean(0)).mean(1)
    )
    with pytest.raises(NetworkError, match=BATCH + "representations that change by"):
        as_network(live, images(2))


def test_a_gradient_that_is_not_finite_is_noticed():
    with pytest.raises(NetworkError, match="gradient of changed with respect to images must be finite"):
        as_network(through(lambda _, z: (z * 0).sqrt() + z), images(2))


def test_a_representation_that_is_not_finite_is_noticed():
    model = changed(forward=lambda self, x: self.out(features(self, x) / 0).nan_to_num(0, 0, 0))
    with pytest.raises(NetworkError, match="representations of changed must be finite for images in"):
        as_network(model, images(2))


def test_a_network_that_computes_otherwise_with_gradients_is_noticed():
    model = through(lambda _, z: z * (2 if torch.is_grad_enabled() else 1))
    with pytest.raises(NetworkError, match="must represent images alike with and without gradients"):
        as_network(model, images(2))


def test_a_network_that_these_images_leave_without_a_gradient_is_not_refused():
    model = Classifier()
    model.hidden.weight.data.zero_()  # the representation is the same of all images
    assert as_network(model, images(2)).width == 12


class KeepsTraining(Classifier):
    def train(self, mode=True):
        return super().train(True)


class ReturnsNothing(Classifier):
    def train(self, mode=True):
        super().train(mode)


class NoMode(Classifier):
    def train(self, mode=True):
        raise ValueError("frozen")


def test_every_layer_must_be_in_evaluation_mode():
    with pytest.raises(
        NetworkError, match=r"in evaluation mode after eval\(\), got KeepsTraining, features, features\.0 and"
    ):
        as_network(KeepsTraining(), images(2))
    with pytest.raises(NetworkError, match="must have an evaluation mode, got ValueError: frozen from its eval"):
        as_network(NoMode(), images(2))


def test_a_train_that_returns_nothing_is_not_in_the_way():
    x = images(2)
    assert invert_images(ReturnsNothing(), x, x.flip(0), iterations=1).shape == x.shape


def lazy():
    model = Classifier()
    model.out = nn.LazyLinear(5)
    return model


def partly(convert):
    model = Classifier()
    convert(model.features)
    return model


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lazy(), "must have values for all of its weights, got none for out.weight, out.bias. Load .* lazy layers"),
        (Classifier().to("meta"), "must have values for all of its weights, got none for features.0.weight"),
        (partly(lambda part: part.to("meta")), "must have values for all of its weights"),
        (Classifier().half(), r"must be float32 or float64, got float16 \(.*\)\. Convert it with \.float\(\)"),
        (Classifier().bfloat16(), "must be float32 or float64, got bfloat16"),
        (partly(lambda part: part.half()), "must be float32 or float64, got float16 .* and float32"),
        (
            partly(lambda part: part.double()),
            r"must have one dtype, got float64 .* Convert .*\.float\(\) or \.double\(\)",
        ),
    ],
)
def test_weights_must_have_values_of_one_dtype(model, message):
    with pytest.raises(NetworkError, match=message):
        as_network(model, images(2))


def test_a_double_network_is_taken_and_its_images_must_be_double():
    network = as_network(Classifier().double(), images(2))
    require_dtype(network.mean, torch.float64, name="n")
    with pytest.raises(NetworkError, match=re.escape("images for n must be float64, as its weights are, got float32.")):
        require_dtype(network.mean, torch.float32, name="n")


def test_user_code_that_ends_the_process_ends_nothing():
    def forward(self, x):
        raise SystemExit(0)

    with pytest.raises(NetworkError, match=r"cannot read images of shape .* \(SystemExit: 0\)"):
        as_network(changed(forward=forward), images(2))


def test_a_network_may_compute_in_half_precision_inside_but_not_represent_in_it():
    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.out(features(self, x))

    with pytest.raises(
        NetworkError, match=r"must be float32, as its weights are, got bfloat16\. Call \.float\(\) before"
    ):
        as_network(changed(forward=forward), images(2))

    def inside(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            z = features(self, x)
        return self.out(z.float())

    assert as_network(changed(forward=inside), images(2)).width == 12


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize(
    "convert",
    [
        lambda model: torch.jit.trace(model, images(1)),
        lambda model: torch.ao.quantization.quantize_dynamic(model, {nn.Linear}),
    ],
    ids=["traced", "quantized"],
)
def test_modules_of_other_kinds_have_no_linear_layer(convert):
    with pytest.raises(NetworkError, match="got a network that runs none"):
        as_network(convert(Classifier().eval()), images(2))


def test_making_a_network_takes_one_pass_of_two_images_and_one_of_each_alone():
    model, seen = Classifier(), []
    model.features.register_forward_hook(lambda _module, args, _output: seen.append(len(args[0])))
    as_network(model, images(2))
    assert seen == [2, 1, 1]
