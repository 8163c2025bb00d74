# SPDX-License-Identifier: Apache-2.0
"""The steps of the set-up, standard library only: they run before anything is installed.

Module         | what it does
-------------- | --------------------------------------------------------------------------
``__main__``   | the order of the steps
``preflight``  | what must be there before work starts, and what to install otherwise
``venv``       | the virtual environment, its stamp and its lock
``packages``   | pip
``mmcv_wheel`` | builds mmcv once per user and combination of what it depends on
``process``    | commands in the background, their logs, and leftovers of a killed set-up
``display``    | phases, elapsed time, progress
"""
