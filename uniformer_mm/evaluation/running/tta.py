# SPDX-License-Identifier: Apache-2.0
"""Multi-scale and flipped segmentation that keeps one probability map instead of one per scale."""

from __future__ import annotations

from mmengine.model import BaseTTAModel
from mmengine.structures import PixelData

from ...registry import MODELS, register


@register(MODELS)
class RunningSegTTA(BaseTTAModel):
    """mmseg's ``SegTTAModel`` with the same sums in the same order.

    That one holds the logits of all twelve passes at the image's own size (150 classes of 512x683
    pixels are 210 MB each) before it adds their softmaxes; here each is added at once.
    """

    def merge_preds(self, data_samples_list: list) -> list:
        """Not used: :meth:`test_step` merges as it goes."""
        raise NotImplementedError

    def test_step(self, data: dict | list) -> list:
        """Predictions of a batch of images, each given once for every scale and flip.

        Args:
            data: Collated ``inputs`` and ``data_samples``, a list of passes each.

        Returns:
            One data sample for each image with ``pred_sem_seg`` and the ground truth.
        """
        passes = len(data['inputs'])
        sums: list = []
        merged: list = []
        for index in range(passes):
            samples = self.module.test_step({key: value[index] for key, value in data.items()})
            for image, sample in enumerate(samples):
                chances_KHW = sample.seg_logits.data.softmax(dim=0)
                del sample.seg_logits
                if index == 0:
                    sums.append(chances_KHW)
                    merged.append(sample)
                else:
                    sums[image] += chances_KHW
        for sample, total_KHW in zip(merged, sums, strict=True):
            total_KHW /= passes
            sample.set_data({'pred_sem_seg': PixelData(data=total_KHW.argmax(dim=0))})
        return merged
