import numpy as np
import pytest

from igo.theory import digits
from igo.theory.studies.noise import minibatch_variances


@pytest.fixture(scope="module")
def data():
    return digits.load()


def test_loss_gradient_and_accuracy_are_those_of_torch(data):
    torch = pytest.importorskip("torch")
    parameters = digits.initial(2, seed=0) + 0.01
    images, labels = data.train_images[:50], data.train_labels[:50]
    for vector in parameters:
        network = torch.nn.Sequential(
            torch.nn.Linear(64, digits.HIDDEN), torch.nn.ReLU(), torch.nn.Linear(digits.HIDDEN, 10)
        ).double()
        parts, at = [], 0
        for shape in digits.SHAPES:
            size = int(np.prod(shape))
            parts.append(vector[at : at + size].reshape(shape))
            at += size
        with torch.no_grad():
            for target, part in zip(network.parameters(), parts, strict=True):
                target.copy_(torch.from_numpy(part.T.copy()))
        outputs = network(torch.from_numpy(images))
        loss = torch.nn.functional.cross_entropy(outputs, torch.from_numpy(labels))
        loss.backward()
        expected = np.concatenate([p.grad.numpy().T.ravel() for p in network.parameters()])
        assert digits.loss(vector, images, labels) == pytest.approx(loss.item(), rel=1e-12)
        np.testing.assert_allclose(digits.gradient(vector, images, labels), expected, atol=1e-12)
        right = (outputs.argmax(1).numpy() == labels).mean()
        assert digits.accuracy(vector, images, labels) == pytest.approx(right)


def test_copies_and_seeds_are_leading_dimensions(data):
    parameters = digits.initial(6, seed=1).reshape(2, 3, -1)
    images = data.train_images[:24].reshape(3, 8, 64)
    labels = data.train_labels[:24].reshape(3, 8)
    batched = digits.gradient(parameters, images[None], labels[None])
    for k in range(2):
        for r in range(3):
            single = digits.gradient(parameters[k, r], images[r], labels[r])
            np.testing.assert_allclose(batched[k, r], single, atol=1e-12)


def test_training_spends_its_budget_and_learns(data):
    recipe = digits.Recipe(np.array([0.3]), np.array([32]), np.zeros(1))
    start = digits.initial(2, seed=0)
    (end,) = digits.train(data, recipe, start, 5 * len(data.train_labels), seed=0)
    before = digits.loss(start, data.train_images, data.train_labels)
    after = digits.loss(end, data.train_images, data.train_labels)
    assert (after < before / 5).all()


def test_perturbed_copies_average_to_the_smoothed_gradient_step(data):
    """One full-batch step with many copies is one step on f̂_δ, estimated here by a plain loop."""
    n = len(data.train_labels)
    recipe = digits.Recipe(np.array([1.0]), np.array([10**6]), np.array([0.05]), copies=64)
    start = digits.initial(1, seed=0)
    (end,) = digits.train(data, recipe, start, 64 * n, seed=0)
    rng = np.random.default_rng(5)
    total = np.zeros_like(start[0])
    for _ in range(64):
        noise = 0.05 * rng.standard_normal(start[0].shape)
        for sign in (1, -1):
            total += digits.gradient(start[0] + sign * noise, data.train_images, data.train_labels)
    expected = -total / 128
    moved = (end - start)[0]
    assert np.linalg.norm(moved - expected) < 0.25 * np.linalg.norm(expected)


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_minibatch_variance_is_lemma_2_1_with_its_finite_factor(batch):
    gradients = np.random.default_rng(0).standard_normal((5, 2))
    c2 = 4 / 5 * np.trace(np.cov(gradients.T))
    drawn, subset = minibatch_variances(gradients, batch)
    assert drawn == pytest.approx(c2 / batch)
    assert subset == pytest.approx(c2 / batch * (5 - batch) / 4)
