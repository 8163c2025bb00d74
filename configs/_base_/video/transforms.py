# SPDX-License-Identifier: Apache-2.0
"""What happens to the frames of a clip, in pieces that ``dense_*.py`` and ``segments_*.py`` join.

RandAugment comes first, on the full frames; normalisation comes last, in the preprocessor: it
commutes with bilinear resizing and flipping. All random draws but the erased pixels are one for
the whole clip.

Source: Sense-X/UniFormer @52a0415 video_classification (kinetics.py, sth.py, hmdb.py,
transform.py, rand_augment.py, random_erasing.py).
DIFFERS: training is validated on one central view; the official log takes random crops there.
DIFFERS: an unreadable video stops the run; the official loader draws another one.
"""

size = 224

open_video = [dict(type='DecordInit')]
decode_video = [dict(type='DecordDecode')]
# The same frames, also where views overlap, without going back for them.
decode_views = [dict(type='uniformer_mm.DecordDecodeOnce')]
# The network sees BGR: the official loader reads frames with OpenCV and never converts.
decode_frames = [dict(type='RawFrameDecode'), dict(type='uniformer_mm.RGBToBGR')]

# rand-m7-n4-mstd0.5-inc1
rand_augment = dict(type='uniformer_mm.ClipRandAugment', num_ops=4, magnitude=7, magnitude_std=0.5)
# rand-m5-n2-mstd0.25: without inc1 the operations do not all grow with the magnitude.
mild_rand_augment = dict(
    type='uniformer_mm.ClipRandAugment',
    num_ops=2,
    magnitude=5,
    magnitude_std=0.25,
    increasing=False,
)
random_crop = dict(
    type='uniformer_mm.ClipRandomResizedCrop',
    size=size,
    area_range=(0.08, 1.0),
    aspect_ratio_range=(3 / 4, 4 / 3),
)
flip = dict(type='Flip', flip_ratio=0.5)
# The noise has the preprocessor's mean and deviation, which are the defaults.
erase = dict(type='uniformer_mm.CubeErasing', prob=0.25)
pack = [dict(type='FormatShape', input_format='NCTHW'), dict(type='PackActionInputs')]

two_copies = dict(
    type='uniformer_mm.AugmentedCopies',
    num_copies=2,
    transforms=[rand_augment, random_crop, flip, erase, *pack],
)
two_mild_copies = dict(two_copies, transforms=[mild_rand_augment, random_crop, flip, erase, *pack])
# Left and right are different actions in Something-Something.
two_unflipped_copies = dict(two_copies, transforms=[rand_augment, random_crop, erase, *pack])

centre_crop = [
    dict(type='uniformer_mm.ClipShortSideResize', short_side=size),
    dict(type='uniformer_mm.ClipUniformCrop', size=size, num_crops=1),
    *pack,
]
three_crops = [
    dict(type='uniformer_mm.ClipShortSideResize', short_side=size),
    dict(type='uniformer_mm.ClipUniformCrop', size=size, num_crops=3),
    *pack,
]
