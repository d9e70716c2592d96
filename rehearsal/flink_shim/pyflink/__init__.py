"""The part of PyFlink that SQL jobs use, over the real Flink: no Python workers, so no Beam."""
