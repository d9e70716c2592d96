"""What a build machine of CodeBuild has beside the build's own files: the commands that npm would install.

Each module is a program of the standard library and boto3 that a build calls by the command's name.
"""
