"""Random changes to training images: within their limits, each image on its own, by the generator alone."""

import torch

from fairsweep.training.augment import Augment, cover, crop, mirror, move


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_shifts_are_whole_pixels_up_to_the_limit_and_all_occur() -> None:
    batch = torch.zeros(500, 1, 9, 11)
    batch[:, :, 4, 5] = 200
    shifted = move(batch, 2, 0, generator())
    assert torch.allclose(shifted.sum((1, 2, 3)), torch.tensor(200.0), atol=0.01)
    spots = (shifted > 199.9).nonzero()
    assert len(spots) == 500
    assert set(map(tuple, spots[:, 2:].tolist())) == {
        (row, column) for row in range(2, 7) for column in range(3, 8)
    }


def test_rotation_keeps_to_its_limit_and_to_the_aspect() -> None:
    batch = torch.zeros(300, 1, 41, 81)
    batch[:, :, 20, 60] = 255  # 20 pixels to the right of the centre
    turned = move(batch, 0, 30, generator())
    spots = turned.flatten(1).argmax(1)
    rows, columns = spots // 81 - 20, spots % 81 - 40
    assert torch.allclose((rows.square() + columns.square()).sqrt(), torch.tensor(20.0), atol=1)
    angles = torch.atan2(rows.float(), columns.float()).rad2deg()
    assert angles.abs().max() < 32
    assert angles.max() > 20
    assert angles.min() < -20


def test_what_comes_in_from_outside_is_the_border() -> None:
    for value in (0.0, 255.0, -0.42):
        batch = torch.full((50, 2, 12, 12), value)
        assert torch.allclose(move(batch, 5, 45, generator()), batch, atol=1e-4)


def test_augmentation_depends_on_its_generator_alone() -> None:
    batch = torch.rand(20, 3, 28, 28)
    torch.manual_seed(1)
    first = move(batch, 3, 10, generator())
    state = torch.random.get_rng_state()
    torch.rand(5)
    assert torch.equal(move(batch, 3, 10, generator()), first)
    assert not torch.equal(move(batch, 3, 10, generator(1)), first)
    torch.manual_seed(1)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.allclose(move(batch, 0, 0, generator()), batch, atol=1e-5)


def numbered(count: int, height: int = 8, width: int = 10) -> torch.Tensor:
    """Images whose pixels all differ and are above 0."""
    return 1.0 + torch.arange(count * 2 * height * width).float().view(count, 2, height, width)


def test_about_half_of_the_images_are_mirrored_exactly() -> None:
    batch = numbered(400)
    mirrored = mirror(batch, generator())
    is_mirrored = (mirrored == batch.flip(3)).flatten(1).all(1)
    is_same = (mirrored == batch).flatten(1).all(1)
    assert (is_mirrored ^ is_same).all()
    assert 160 < int(is_mirrored.sum()) < 240


def test_a_crop_is_a_window_of_the_image_with_a_margin_of_zeros_and_all_windows_occur() -> None:
    batch = numbered(300)
    cropped = crop(batch, 2, generator())
    padded = torch.nn.functional.pad(batch, [2] * 4)
    windows = {
        (top, left): padded[:, :, top : top + 8, left : left + 10] for top in range(5) for left in range(5)
    }
    seen = []
    for number in range(len(batch)):
        (found,) = [place for place, those in windows.items() if torch.equal(cropped[number], those[number])]
        seen.append(found)
    assert set(seen) == set(windows)


def test_a_square_of_each_image_is_covered_and_what_is_outside_of_it_stays() -> None:
    batch = numbered(500)
    covered = cover(batch, 3, generator())
    hidden = covered == 0
    assert torch.equal(covered[~hidden], batch[~hidden])
    assert torch.equal(hidden[:, 0], hidden[:, 1])  # the same place in all channels
    areas = hidden[:, 0].sum((1, 2))
    assert int(areas.max()) == 9
    assert int(areas.min()) == 4  # a corner: centre within the image
    assert int((areas == 9).sum()) > 250
    rows, columns = hidden[:, 0].any(2).sum(1), hidden[:, 0].any(1).sum(1)
    assert torch.equal(rows * columns, areas)


def test_all_changes_together_depend_on_the_generator_alone_and_keep_the_shape() -> None:
    batch = torch.rand(20, 3, 16, 16)
    every = Augment(shift=1, rotate=5, flip=True, crop=2, cutout=4)

    def changed(seed: int) -> torch.Tensor:
        random = generator(seed)
        return every.of_normalised(every.of_pixels(batch, random), random)

    assert changed(0).shape == batch.shape
    assert torch.equal(changed(0), changed(0))
    assert not torch.equal(changed(0), changed(1))
    nothing = Augment()
    assert nothing.of_normalised(nothing.of_pixels(batch, generator()), generator()) is batch
