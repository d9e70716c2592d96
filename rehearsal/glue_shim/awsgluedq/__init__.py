"""The part of AWS Glue's ``awsgluedq`` package that a job uses: evaluate a ruleset on a frame."""
