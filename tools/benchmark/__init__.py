# SPDX-License-Identifier: Apache-2.0
"""Benchmarks: each command is ``python tools/benchmark/NAME.py``; ``--help`` says what it takes.

Command        | what it measures
-------------- | --------------------------------------------------------------------------
``gpu``        | everything a GPU can tell, within ten minutes: verification, tests, table
``cpu``        | the CPU table: eager, compiled, ONNX Runtime, OpenVINO, official and ours
``networks``   | networks beside the references: any task, size, dtype, variant
``operators``  | single operations beside PyTorch's; ``--overhead``, ``--tune``
``steps``      | whole training steps and tests under the runner
``data``       | what a sample costs before it reaches the network, by transform
``evaluation`` | tests here and in the toolboxes' own loops
``numerics``   | errors of bfloat16 beside the reference's
``roofline``   | bytes and operations on a GPU that need not be there
``assembly``   | registers, spills, instructions for a GPU that need not be there

Shared: ``workloads`` (what is measured), ``variants`` and ``graphs`` (by which networks),
``parity`` (refused if wrong), ``measure``, ``rows``, ``timing``, ``traffic`` (bytes), ``plots``,
``comparisons`` (operations), ``overhead`` and ``drivers`` (without a GPU), ``running`` (recipes).
"""
