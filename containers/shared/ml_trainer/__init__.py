"""What every training image does alike, whatever learns: channels in, a model folder out, and between them
checkpoints, rules, folds and lines that metrics are read from.
"""
