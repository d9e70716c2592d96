"""The part of AWS Glue's ``awsglue`` package that Spark scripts use, on a plain local PySpark.

Glue's workers read ``s3://`` through EMRFS. Here the files of an ``s3://`` path are fetched and put back with
boto3 and the job's own role (`awsglue.local_s3`), so that S3, IAM and KMS see the calls. What is not here
raises ``AttributeError`` or ``NotImplementedError``; nothing pretends.
"""
