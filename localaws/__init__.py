"""The laptop's AWS: one process on loopback that answers as the AWS services Headrace uses."""
