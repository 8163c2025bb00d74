# SPDX-License-Identifier: Apache-2.0
"""ADE20K archives and the challenge's score, on three real images."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from uniformer_mm.submission.ade20k.archive import write_ade20k
from uniformer_mm.submission.ade20k.score import score_ade20k
from uniformer_mm.submission.check import check_file
from uniformer_mm.submission.official import read_image_stems


@pytest.fixture
def stems(ade: Path) -> dict[str, tuple[int, int]]:
    return read_image_stems(ade / 'images' / 'validation')


@pytest.fixture
def predictions(ade: Path, tmp_path: Path) -> Path:
    """Label maps as mmseg saves them: the truth, a third of it replaced, some classes nowhere."""
    folder = tmp_path / 'predictions'
    folder.mkdir()
    rng = np.random.default_rng(0)
    for path in sorted((ade / 'annotations' / 'validation').iterdir()):
        labels = np.asarray(Image.open(path)).copy()
        labels[(rng.random(labels.shape) < 0.3) | (labels == 0)] = rng.integers(1, 121)
        labels[:20] = rng.integers(1, 121, labels[:20].shape)
        Image.fromarray(labels).save(folder / path.name)
    return folder


def replace(path: Path, change) -> None:
    """Rewrite a label map; `change` gets and returns the array."""
    Image.fromarray(change(np.asarray(Image.open(path)).copy())).save(path)


def test_the_archive(predictions, stems, ade, tmp_path):
    target, issues = write_ade20k(predictions, stems, tmp_path / 'out', algorithm='UniFormer_B')
    assert target.name == 'ade20k_UniFormer_B_results.zip'
    with zipfile.ZipFile(target) as archive:
        assert archive.namelist() == [f'ADE_val_{n:08}.png' for n in (1, 2, 3)]
        for name in archive.namelist():
            image = Image.open(io.BytesIO(archive.read(name)))
            photo = Image.open(ade / 'images' / 'validation' / name.replace('png', 'jpg'))
            assert (image.mode, image.size) == ('L', photo.size)
            assert image.getextrema()[0] >= 1 and image.getextrema()[1] <= 150
    task, issues = check_file(target, ids=ade / 'images' / 'validation')
    assert (task, issues.lines(), issues.notes) == ('ade20k', [], [])


def test_class_indices_are_raised_on_request(predictions, stems, tmp_path):
    truth = {path.name: np.asarray(Image.open(path)) for path in predictions.iterdir()}
    for path in predictions.iterdir():
        replace(path, lambda labels: labels - 1)
    with pytest.raises(ValueError, match=r'0 is "other".*pass --add-one'):
        write_ade20k(predictions, stems, tmp_path / 'out', algorithm='X')
    target, _ = write_ade20k(predictions, stems, tmp_path / 'out', algorithm='X', add_one=True)
    with zipfile.ZipFile(target) as archive:
        for name, labels in truth.items():
            written = np.asarray(Image.open(io.BytesIO(archive.read(name))))
            np.testing.assert_array_equal(written, labels)
    replace(predictions / 'ADE_val_00000001.png', lambda labels: labels * 0 + 150)
    with pytest.raises(ValueError, match='values 150 to 150, expected 0 to 149'):
        write_ade20k(predictions, stems, tmp_path / 'o', algorithm='X', add_one=True)


def png_of(width: int, height: int, bits: int, pixels: bytes) -> bytes:
    """A grey PNG file with this header, whatever the pixels are."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack('>I', zlib.crc32(kind + data))
        return struct.pack('>I', len(data)) + kind + data + checksum

    header = struct.pack('>IIBBBBB', width, height, bits, 0, 0, 0, 0)
    data = chunk(b'IDAT', zlib.compress(pixels))
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + data + chunk(b'IEND', b'')


def png_claiming(width: int, height: int) -> bytes:
    """A PNG file whose header claims a size that its few bytes do not hold."""
    return png_of(width, height, 8, bytes(64))


@pytest.mark.parametrize('bits', [1, 2, 4, 8])
def test_labels_have_eight_bits(bits, tmp_path):
    """Pillow reads 2 and 4 bits as if they were 8, with other labels: 3 of 15 becomes 51."""
    row = b'\0' + bytes([int(f'{1:0{bits}b}' * (8 // bits), 2)]) * bits
    (tmp_path / 'ADE_test_00000001.png').write_bytes(png_of(8, 8, bits, row * 8))
    _, issues = check_file(tmp_path)
    lines = {1: ['mode 1, expected L'], 2: ['2 bits a pixel, expected 8'],
             4: ['4 bits a pixel, expected 8'], 8: []}[bits]  # fmt: skip
    assert [part for line in issues.lines()[1:] for part in lines if part in line] == lines
    assert issues.count == len(lines)


def test_nothing_at_all(stems, tmp_path):
    (tmp_path / 'maps').mkdir()
    with pytest.raises(
        ValueError, match=r'empty \(1\): no files at all; image missing \(3\): ADE_v'
    ):
        write_ade20k(tmp_path / 'maps', stems, tmp_path / 'out', algorithm='X')
    assert list((tmp_path / 'out').iterdir()) == []
    _, issues = check_file(tmp_path / 'maps')
    assert issues.lines() == ['empty: 1', '  no files at all']


def palette(path: Path) -> None:
    Image.open(path).convert('P').save(path)


def colour(path: Path) -> None:
    Image.open(path).convert('RGB').save(path)


def sixteen_bits(path: Path) -> None:
    Image.fromarray(np.asarray(Image.open(path)).astype(np.uint16)).save(path)


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (palette, 'bad label map .*00000002.png: mode P, expected L'),
        (colour, 'bad label map .*00000002.png: mode RGB, expected L'),
        (sixteen_bits, r'bad label map .*00000002.png: mode I(;16)?, expected L'),
        (lambda p: replace(p, lambda a: a[:-1]), 'bad label map .*pixels, but its image has'),
        (lambda p: replace(p, lambda a: a * 0 + 151), 'label out of range .*values 151 to 151'),
        (lambda p: replace(p, lambda a: a * 0 + 255), 'label out of range .*values 255 to 255'),
        (lambda p: p.write_bytes(b'text'), 'bad label map .*00000002.png: not a PNG file'),
        (lambda p: p.write_bytes(p.read_bytes()[:2000]), 'bad label map .*damaged'),
        (lambda p: p.write_bytes(png_claiming(60000, 60000)), 'bad label map'),
        (lambda p: p.unlink(), 'image missing .*ADE_val_00000002.png: every test image needs'),
        (lambda p: p.rename(p.parent / 'ADE_val_9.png'), 'image not in the official list .*al_9.p'),
        (lambda p: (p.parent / 'log.txt').write_text('x'), 'image not in the official .*log.txt'),
    ],
)  # fmt: skip
def test_faults(damage, message, predictions, stems, tmp_path):
    damage(predictions / 'ADE_val_00000002.png')
    with pytest.raises(ValueError, match=message):
        write_ade20k(predictions, stems, tmp_path / 'out', algorithm='X')
    assert list((tmp_path / 'out').iterdir()) == []


def test_a_picture_bomb_is_not_decoded_without_a_list(tmp_path):
    path = tmp_path / 'x.zip'
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('ADE_test_00000001.png', png_claiming(12000, 12000))
        archive.writestr('labels/ADE_test_00000002.png', png_claiming(4, 4))
    _, issues = check_file(path)
    assert 'png: it is not decoded (Image size (144000000 pixels)' in issues.lines()[1]
    assert issues.kinds['wrong file name'].count == 1


def test_names_cannot_command_the_terminal(run, tmp_path):
    path = tmp_path / 'x.zip'
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('\x1b[2J\n' + 'a' * 900 + '.png', b'')
    status, text = run('submit', '--check', path)
    assert status == 1 and '\x1b' not in text
    assert '  \\x1b[2J\\naaa' in text and max(map(len, text.splitlines())) < 500


def test_a_list_of_names(predictions, stems, tmp_path):
    names = tmp_path / 'list.txt'
    names.write_text('\n'.join(f'{stem}.jpg' for stem in stems))
    _, issues = check_file(predictions, ids=names)
    assert issues.count == 0
    assert issues.notes == [
        'sizes were not compared: the list has names only (give the image folder)'
    ]
    names.write_text('ADE_val_00000001.jpg\n' * 2)
    with pytest.raises(ValueError, match='1 names are listed twice'):
        read_image_stems(names)
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ValueError, match='no image names'):
        read_image_stems(tmp_path / 'empty')


def brute_force(predictions: Path, annotations: Path) -> tuple[float, float]:
    """Pixel accuracy and mean IoU, class by class over boolean masks."""
    intersections, unions = np.zeros(151), np.zeros(151)
    right = counted = 0
    for path in annotations.iterdir():
        truth = np.asarray(Image.open(path)).astype(int)
        guess = np.asarray(Image.open(predictions / path.name)).astype(int)
        known = truth != 0
        right += np.sum((truth == guess) & known)
        counted += np.sum(known)
        for label in range(1, 151):
            intersections[label] += np.sum((truth == label) & (guess == label) & known)
            unions[label] += np.sum(((truth == label) | (guess == label)) & known)
    present = unions > 0
    return right / counted, np.mean(intersections[present] / unions[present])


def test_the_score_is_the_challenges(predictions, ade):
    annotations = ade / 'annotations' / 'validation'
    metrics, _ = score_ade20k(predictions, annotations)
    accuracy, iou = brute_force(predictions, annotations)
    assert metrics['pixel_accuracy'] == pytest.approx(accuracy * 100, rel=1e-12)
    assert metrics['mIoU'] == pytest.approx(iou * 100, rel=1e-12)
    assert metrics['score'] == pytest.approx((accuracy + iou) * 50, rel=1e-12)
    assert metrics['images'] == 3
    assert 100 < metrics['classes'] < 150
    for path in predictions.iterdir():
        replace(path, lambda labels: labels - 1)
    assert score_ade20k(predictions, annotations, add_one=True)[0] == metrics


def test_mmseg_agrees(predictions, ade):
    torch = pytest.importorskip('torch')
    metric = pytest.importorskip('mmseg.evaluation').IoUMetric
    areas = np.zeros((4, 150))
    for path in predictions.iterdir():
        truth = np.asarray(Image.open(ade / 'annotations' / 'validation' / path.name)).astype(int)
        truth = torch.as_tensor(np.where(truth == 0, 255, truth - 1))
        guess = torch.as_tensor(np.asarray(Image.open(path)).astype(int) - 1)
        areas += np.array([a.numpy() for a in metric.intersect_and_union(guess, truth, 150, 255)])
    areas = [torch.as_tensor(area) for area in areas]
    expected = metric.total_area_to_metrics(*areas, metrics=['mIoU'])
    metrics, _ = score_ade20k(predictions, ade / 'annotations' / 'validation')
    assert metrics['mIoU'] == pytest.approx(np.nanmean(expected['IoU']) * 100)
    assert metrics['pixel_accuracy'] == pytest.approx(float(expected['aAcc']) * 100)


def test_scoring_other_images_is_refused(predictions, ade):
    (predictions / 'ADE_val_00000003.png').unlink()
    with pytest.raises(ValueError, match=r'image missing \(1\): ADE_val_00000003.png.*was scored'):
        score_ade20k(predictions, ade / 'annotations' / 'validation')
