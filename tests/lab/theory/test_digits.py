import numpy as np
import pytest
import torch

from lab.theory import digits
from lab.theory.digits import NETWORK, PIXELS, Network
from lab.theory.studies.noise import minibatch_variances
from lab.theory.studies.own_noise import BALL, BATCH, KERNELS, LARGE, OWN, OWN_GAUSSIAN, noise


@pytest.fixture(scope="module")
def data():
    return digits.load()


def module_of(network, vector):
    """Return the same network as PyTorch's own layers."""
    activation = torch.nn.ReLU() if network.activation is torch.relu else torch.nn.Tanh()
    layers = torch.nn.Sequential(
        torch.nn.Linear(PIXELS, network.hidden), activation, torch.nn.Linear(network.hidden, 10)
    ).double()
    w1, b1, w2, b2 = vector.split(network.sizes)
    values = (w1.view(PIXELS, -1).T, b1, w2.view(network.hidden, -1).T, b2)
    with torch.no_grad():
        for target, value in zip(layers.parameters(), values, strict=True):
            target.copy_(value)
    return layers


@pytest.mark.parametrize("network", [Network(), Network(12, torch.tanh)])
def test_loss_and_gradient_are_those_of_torchs_layers(data, network):
    images, labels = data.train_images[:50], data.train_labels[:50]
    for vector in network.initial(2, seed=0) + 0.01:
        layers = module_of(network, vector)
        loss = torch.nn.functional.cross_entropy(layers(images), labels)
        loss.backward()
        slope = torch.cat([torch.atleast_2d(p.grad).mT.ravel() for p in layers.parameters()])
        assert float(network.loss(vector, images, labels)) == pytest.approx(loss.item(), rel=1e-12)
        torch.testing.assert_close(network.gradient(vector, images, labels), slope)


def test_copies_and_seeds_are_leading_dimensions(data):
    parameters = NETWORK.initial(6, seed=1).reshape(2, 3, -1)
    images = data.train_images[:24].reshape(3, 8, 64)
    labels = data.train_labels[:24].reshape(3, 8)
    batched = NETWORK.gradient(parameters, images[None], labels[None])
    for k in range(2):
        for r in range(3):
            single = NETWORK.gradient(parameters[k, r], images[r], labels[r])
            torch.testing.assert_close(batched[k, r], single)


def test_training_is_gradient_descent_by_hand_and_learns(data):
    start = NETWORK.initial(1, seed=0)[0]
    end = digits.after_epochs(data, 5, 0.3, 32, seed=0)
    assert NETWORK.loss(end, *data.train) < NETWORK.loss(start, *data.train) / 5
    x, n = start, len(data.train_labels)
    for _ in range(2):
        x = x - 0.3 * NETWORK.gradient(x, *data.train)
    torch.testing.assert_close(digits.after_epochs(data, 2, 0.3, n, seed=0), x)


def test_sample_gradients_are_one_loop_over_the_samples(data):
    x = NETWORK.initial(1, seed=3)[0]
    gradients = digits.sample_gradients(NETWORK, x, data)
    torch.testing.assert_close(gradients.mean(0), NETWORK.gradient(x, *data.train))
    for i in (0, 7):
        gradient = NETWORK.gradient(x, data.train_images[i : i + 1], data.train_labels[i : i + 1])
        torch.testing.assert_close(gradients[i], gradient)


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_kernel_of_noise_has_the_variance_of_a_mini_batch(kernel):
    source = torch.Generator().manual_seed(0)
    gradients = torch.randn(60, 8, generator=source, dtype=torch.float64) ** 3
    gradients -= gradients.mean(0)
    c2 = float((gradients**2).sum(1).mean())
    drawn = noise(kernel, gradients, 20_000, source)
    expected = c2 / BATCH / (4 if kernel == LARGE else 1) * (8 / 10 if kernel == BALL else 1)
    assert float((drawn**2).sum(1).mean()) == pytest.approx(expected, rel=0.05)
    if kernel in (OWN, OWN_GAUSSIAN):
        covariance = gradients.T @ gradients / 60 / BATCH
        assert (drawn.T @ drawn / 20_000 - covariance).norm() < 0.05 * covariance.norm()


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_minibatch_variance_is_lemma_2_1_with_its_finite_factor(batch):
    gradients = np.random.default_rng(0).standard_normal((5, 2))
    c2 = 4 / 5 * np.trace(np.cov(gradients.T))
    drawn, subset = minibatch_variances(gradients, batch)
    assert drawn == pytest.approx(c2 / batch)
    assert subset == pytest.approx(c2 / batch * (5 - batch) / 4)
