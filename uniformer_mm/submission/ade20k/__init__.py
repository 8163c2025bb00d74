# SPDX-License-Identifier: Apache-2.0
"""Label maps of ADE20K as its server takes them."""
