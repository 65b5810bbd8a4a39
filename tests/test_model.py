"""Every network by its name, on images of every size that the data sets here have."""

from __future__ import annotations

import logging
import urllib.error
from typing import Any

import pytest
import torch
import torchvision.models
from torch import nn

from dora_train.model import AUXILIARY, WithAuxiliary, _WithoutMemory, build_model, check_model
from dora_train.module import Classifier

NAMES = torchvision.models.list_models(module=torchvision.models)
FAMILIES = [
    "alexnet",
    "densenet121",
    "googlenet",
    "mobilenet_v3_small",
    "regnet_x_400mf",
    "resnet18",
    # one of each that is cheap enough for every day
    "shufflenet_v2_x0_5",
    "squeezenet1_0",
    "vgg11",
]


def logits_of(name: str, size: int, training: bool) -> torch.Tensor:
    """The network's output on the meta device: shapes, and every complaint about them."""
    with _WithoutMemory():
        network = build_model(name, num_classes=7, image_size=size)
    outputs = network.to("meta").train(training)(torch.zeros(4, 3, size, size, device="meta"))
    if training and name in AUXILIARY:
        assert isinstance(outputs, WithAuxiliary) and outputs.weight == AUXILIARY[name]
        assert all(other.shape == (4, 7) for other in outputs.others) and outputs.others
        return outputs.logits
    return outputs


def test_there_are_some_80_classifiers():
    assert len(NAMES) >= 80


@pytest.mark.slow
@pytest.mark.parametrize("size", [8, 28, 32, 64])  # digits, MNIST, CIFAR-10, image folders
@pytest.mark.parametrize("name", NAMES)
def test_every_classifier_on_every_data_set(name: str, size: int):
    for training in (True, False):
        assert logits_of(name, size, training).shape == (4, 7)


@pytest.mark.parametrize("size", [8, 224])
@pytest.mark.parametrize("name", FAMILIES)
def test_one_of_each_family(name: str, size: int):
    assert logits_of(name, size, training=True).shape == (4, 7)


@pytest.mark.parametrize("name", [*NAMES, "small"])
def test_every_name_is_checked_without_memory(name: str):
    check_model(name)


@pytest.mark.parametrize("name", ["small", "resnet18", "squeezenet1_1", "mobilenet_v3_small"])
def test_a_real_step(name: str):
    network = build_model(name, num_classes=10, image_size=8)
    network(torch.randn(4, 3, 8, 8)).logsumexp(1).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


# --- small images ---


def test_resnets_get_a_stem_for_small_images():
    small: Any = build_model("resnet18", 10, image_size=32)
    large: Any = build_model("resnet18", 10, image_size=224)
    kept: Any = build_model("resnet18", 10, image_size=32, stem="imagenet")
    assert small.conv1.kernel_size == (3, 3) and small.conv1.stride == (1, 1)
    assert isinstance(small.maxpool, nn.Identity)
    for network in (large, kept):
        assert network.conv1.kernel_size == (7, 7) and isinstance(network.maxpool, nn.MaxPool2d)
    names = list(torchvision.models.resnet18(num_classes=10).state_dict())
    assert list(small.state_dict()) == names  # checkpoints keep torchvision's names


@pytest.mark.parametrize("name", [name for name in NAMES if "resne" in name])
def test_all_resnets_have_it(name: str):
    with _WithoutMemory():
        assert build_model(name, 10, image_size=64).conv1.stride == (1, 1)


def test_images_that_are_too_small_are_resized_and_it_is_said(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "dora_train")
    network: Any = build_model("squeezenet1_1", 10, image_size=8)
    assert caplog.messages == [
        "squeezenet1_1 is given images of 17 x 17: those of 8 x 8 are resized"
    ]
    seen = []
    network.features[0].register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0].shape)
    )
    network(torch.zeros(2, 3, 8, 8))
    assert seen == [(2, 3, 17, 17)]
    caplog.clear()
    build_model("squeezenet1_1", 10, image_size=32)
    check_model("squeezenet1_1")
    assert not caplog.messages


def test_all_images_can_be_resized():
    network: Any = build_model("resnet18", 10, image_size=32, resize=64)
    assert network.conv1.stride == (2, 2)
    seen = []
    network.conv1.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape))
    network(torch.zeros(2, 3, 32, 32))
    assert seen == [(2, 3, 64, 64)]


# --- auxiliary outputs ---


def test_auxiliary_losses_are_trained_with_their_weight():
    torch.manual_seed(0)
    network: Any = build_model("googlenet", 5, image_size=32)
    module = Classifier(network, {}, {}, {"label_smoothing": 0.0})
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])
    for dropout in (layer for layer in network.modules() if isinstance(layer, nn.Dropout)):
        dropout.p = 0.0
    outputs = network(images)
    one = [
        nn.functional.cross_entropy(logits, labels) for logits in (outputs.logits, *outputs.others)
    ]
    step = module.training_step((images, labels), 0)
    assert len(one) == 3
    assert torch.allclose(step["loss"], one[0] + 0.3 * (one[1] + one[2]))
    assert torch.equal(step["acc"], outputs.logits.argmax(1) == labels)
    step["loss"].backward()
    assert network.aux1.fc2.weight.grad.abs().sum() > 0
    assert module.eval().validation_step((images, labels), 0)["loss"].shape == (4,)


# --- trained weights ---


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("torch.hub.urlopen", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))


def test_weights_that_cannot_be_downloaded(offline: None, tmp_path):
    check_model("resnet18", weights="DEFAULT")  # asks nobody
    with pytest.raises(ValueError) as caught:
        build_model("resnet18", 10, weights="DEFAULT")
    first, second = str(caught.value).splitlines()
    assert "resnet18 cannot be downloaded" in first and "no network" in first
    assert "https://download.pytorch.org/models/resnet18-" in second and str(tmp_path) in second


def test_weights_are_taken_where_they_fit(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """A file in torchvision's format stands for its download: a network of 1000 classes."""
    caplog.set_level(logging.INFO, "dora_train")
    for name in ("resnet18", "densenet121"):
        trained = torchvision.models.get_model(name)
        weights = torchvision.models.get_model_weights(name).DEFAULT
        monkeypatch.setattr(
            type(weights),
            "get_state_dict",
            lambda self, *args, trained=trained, **how: trained.state_dict(),
        )
        network = build_model(name, 10, image_size=32, weights="DEFAULT")
        own, theirs = network.state_dict(), trained.state_dict()
        fresh = [
            key
            for key in own
            if not torch.equal(own[key], theirs[key])
            if own[key].shape == theirs[key].shape
        ]
        assert not fresh
        head = "fc" if name == "resnet18" else "classifier"
        assert own[f"{head}.weight"].shape[0] == 10
        assert caplog.messages[-1].endswith(f"not taken: {head}")


def test_weights_that_there_are_not():
    with pytest.raises(ValueError, match="model_args.weights=V9: resnet18 has IMAGENET1K_V1"):
        check_model("resnet18", weights="V9")


# --- mistakes ---


@pytest.mark.parametrize(
    "name, args, said",
    [
        ("resnet19", {}, "did you mean resnet1"),
        ("qqqq", {}, "small, or one of the"),
        ("small", {"heads": 3}, "small cannot be built with heads=3"),
        ("resnet18", {"width": 3}, "resnet18 cannot be built with width=3"),
        ("resnet18", {"stem": "cifar"}, "stem=cifar: it takes imagenet"),
        ("resnet18", {"image_size": 64}, "model_args.resize"),
        ("resnet18", {"num_classes": 3}, "model_args.num_classes: the data say it"),
        ("small", {"name": "resnet18"}, "model_args.name: the model is chosen by model=NAME"),
        ("resnet18", {"resize": 0}, "model_args.resize=0: it takes a whole number"),
        ("resnet18", {"resize": 12.5}, "model_args.resize=12.5"),
        ("small", {"width": 0}, "model_args.width=0"),
        ("maxvit_t", {"input_size": [64, 64]}, "is not divisible by partition size 7"),
        ("vit_b_16", {"resize": 32}, "vit_b_16 takes images of 224 x 224 only"),
        (
            "mobilenet_v2",
            {"stem": "imagenet", "dropout": "much"},
            "mobilenet_v2 cannot be built with dropout=much",
        ),
    ],
)
def test_mistakes_are_refused_in_one_line(name: str, args: dict, said: str):
    with pytest.raises(ValueError) as caught:
        check_model(name, **args)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_bug_in_an_own_model_keeps_its_name(monkeypatch: pytest.MonkeyPatch):
    def broken(num_classes: int, width: int = 1) -> nn.Module:
        raise RuntimeError("a bug")

    monkeypatch.setitem(__import__("dora_train.model").model.MODELS, "broken", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        build_model("broken", 10, width=2)


def test_the_initial_weights_follow_the_seed():
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return torch.cat(
            [parameter.flatten() for parameter in build_model("resnet18", 10).parameters()]
        )

    assert torch.equal(weights(1), weights(1)) and not torch.equal(weights(1), weights(2))


@pytest.mark.slow
@pytest.mark.parametrize(
    "args, said",
    [
        (["model=resnet18"], "finished"),
        (["model=googlenet", "model_args.dropout=0.1"], "googlenet is given images of 15 x 15"),
    ],
)
def test_by_the_command(project, args: list[str], said: str):
    assert said in project.dora("run", "debug=fast", "trainer.max_epochs=1", *args)
