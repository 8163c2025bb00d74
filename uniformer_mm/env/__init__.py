# SPDX-License-Identifier: Apache-2.0
"""What this package needs from its environment, and what is wrong with released packages.

Module          | what it knows
--------------- | ---------------------------------------------------------------------------
``versions``    | the supported range of every package (setup.cfg repeats it, a test compares)
``patching``    | how to change an installed file: atomically, idempotently, reversibly
``repairs``     | the table of repairs to released packages that cannot work as they are
``probes``      | short programs that prove by behaviour whether something works
``checks``      | one result per row: versions, compiled ops, repairs, imports
``doctor``      | the command ``uniformer-mm doctor [--fix | --revert]``
"""
