# SPDX-License-Identifier: Apache-2.0
"""Result files of COCO: boxes, masks and keypoints."""
