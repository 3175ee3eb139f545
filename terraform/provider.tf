terraform {
  required_version = ">= 1.10, < 2"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.100, < 6"
    }
  }
}

# On AWS nothing but the region is set here: credentials come from the environment (the build's role, a profile).
# Against the laptop's AWS the environment's AWS_ENDPOINT_URL leads every service to loopback, which knows buckets by
# path and no instance metadata.
provider "aws" {
  region                      = var.region
  s3_use_path_style           = var.laptop
  skip_metadata_api_check     = var.laptop
  skip_region_validation      = var.laptop
  skip_requesting_account_id  = false
  skip_credentials_validation = false

  default_tags {
    tags = merge(var.tags, {
      Project     = var.name
      Environment = var.environment
      ManagedBy   = "terraform"
    })
  }
}
