"""`python -m mflow_sbi`: the command line, also for torchrun, which starts modules."""

from mflow_sbi.cli import main

if __name__ == "__main__":
    main()
