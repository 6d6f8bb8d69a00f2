import numpy as np
import pytest
import torch

from lab.theory import digits
from lab.theory.digits import NETWORK, PIXELS, Network, Recipe
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
def test_loss_gradient_and_accuracy_are_those_of_torchs_layers(data, network):
    images, labels = data.train_images[:50], data.train_labels[:50]
    for vector in network.initial(2, seed=0) + 0.01:
        layers = module_of(network, vector)
        outputs = layers(images)
        loss = torch.nn.functional.cross_entropy(outputs, labels)
        loss.backward()
        slope = torch.cat([torch.atleast_2d(p.grad).mT.ravel() for p in layers.parameters()])
        assert float(network.loss(vector, images, labels)) == pytest.approx(loss.item(), rel=1e-12)
        torch.testing.assert_close(network.gradient(vector, images, labels), slope)
        right = (outputs.argmax(1) == labels).double().mean()
        assert network.accuracy(vector, images, labels) == right


def test_copies_and_seeds_are_leading_dimensions(data):
    parameters = NETWORK.initial(6, seed=1).reshape(2, 3, -1)
    images = data.train_images[:24].reshape(3, 8, 64)
    labels = data.train_labels[:24].reshape(3, 8)
    batched = NETWORK.gradient(parameters, images[None], labels[None])
    for k in range(2):
        for r in range(3):
            single = NETWORK.gradient(parameters[k, r], images[r], labels[r])
            torch.testing.assert_close(batched[k, r], single)


def test_training_spends_its_budget_and_learns(data):
    recipe = Recipe(np.array([0.3]), np.array([32]), np.zeros(1))
    start = NETWORK.initial(2, seed=0)
    (end,) = digits.train(data, recipe, start, 5 * len(data.train_labels), seed=0)
    assert (NETWORK.loss(end, *data.train) < NETWORK.loss(start, *data.train) / 5).all()


def test_full_batch_training_is_gradient_descent_by_hand(data):
    recipe = Recipe(np.array([0.3, 0.1]), np.array([10**6, 10**6]), np.zeros(2))
    x = NETWORK.initial(2, seed=0)
    ends = digits.train(data, recipe, x, 4 * len(data.train_labels), seed=0)
    for rate, end in zip((0.3, 0.1), ends, strict=True):
        for _ in range(2):
            x = x - rate * NETWORK.gradient(x, *data.train)
        torch.testing.assert_close(end, x)


def test_perturbed_copies_average_to_the_smoothed_gradient_step(data):
    """One full-batch step with many copies is one step on f̂_δ, estimated here by a plain loop."""
    n = len(data.train_labels)
    recipe = Recipe(np.array([1.0]), np.array([10**6]), np.array([0.05]), copies=64)
    start = NETWORK.initial(1, seed=0)
    (end,) = digits.train(data, recipe, start, 64 * n, seed=0)
    source = torch.Generator().manual_seed(5)
    total = torch.zeros_like(start[0])
    for _ in range(64):
        move = 0.05 * torch.randn(start[0].shape, generator=source, dtype=start.dtype)
        for sign in (1, -1):
            total += NETWORK.gradient(start[0] + sign * move, *data.train)
    expected = -total / 128
    assert (end[0] - start[0] - expected).norm() < 0.25 * expected.norm()


def test_sample_gradients_are_one_loop_over_the_samples(data):
    x = NETWORK.initial(1, seed=3)[0]
    gradients = digits.sample_gradients(NETWORK, x, data)
    torch.testing.assert_close(gradients.mean(0), NETWORK.gradient(x, *data.train))
    for i in (0, 7):
        gradient = NETWORK.gradient(x, data.train_images[i : i + 1], data.train_labels[i : i + 1])
        torch.testing.assert_close(gradients[i], gradient)


def test_largest_curvature_is_the_eigenvalue_of_the_whole_hessian(data):
    network = Network(2, torch.tanh)
    x = network.initial(1, seed=0)[0]
    hessian = torch.autograd.functional.hessian(lambda p: network.loss(p, *data.train), x)
    values = torch.linalg.eigvalsh(hessian)
    largest = values[values.abs().argmax()]
    curvature = digits.largest_curvature(network, x, data, steps=300)
    assert curvature == pytest.approx(float(largest), rel=1e-3)


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
