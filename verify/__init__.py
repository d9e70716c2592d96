"""Cross-checks of a synthesised app that no synth does.

``python -m verify [cdk.out]`` needs neither credentials nor network nor Docker: it reads the cloud assembly,
the code that the assembly deploys, botocore's service models and dated tables of what AWS documents, and
holds one against the other. Each check is a module of ``verify.checks``; what it finds names the place, the
value, what is allowed and the fix. What stays although found stands in ``verify.yaml`` with its reason.

The package imports neither stacks nor constructs: it judges what they made.
"""
