import os
import sys

print(os.environ["GREETING"], *sys.argv[1:])
