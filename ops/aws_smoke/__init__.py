"""`python -m ops.aws_smoke`: proves on a real account what nothing else can prove, and destroys what it made.

Against the laptop's AWS (AWS_ENDPOINT_URL on loopback) the same script is a rehearsal: it shows that the script works,
and counts no claim as proven.
"""
