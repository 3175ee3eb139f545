# The state lies in the bucket that the seed makes; bucket, key and region come from `terraform init -backend-config=...`.
# The lock is an object beside the state (use_lockfile), so no lock table is needed.
terraform {
  backend "s3" {
    encrypt      = true
    use_lockfile = true
  }
}
