# The agents' identity and configuration. Planned by the real provider, which asks AWS nothing.

provider "aws" {
  region                      = "eu-central-1"
  access_key                  = "none"
  secret_key                  = "none"
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  skip_requesting_account_id  = true
}

override_data {
  target = data.aws_caller_identity.current
  values = { account_id = "123456789012" }
}

override_data {
  target = data.aws_availability_zones.usable
  values = { names = ["eu-central-1a", "eu-central-1b", "eu-central-1c"] }
}

override_resource {
  target          = aws_rolesanywhere_trust_anchor.site[0]
  override_during = plan
  values          = { arn = "arn:aws:rolesanywhere:eu-central-1:123456789012:trust-anchor/anchor-1" }
}

override_resource {
  target          = aws_vpc_endpoint.interface["s3"]
  override_during = plan
  values          = { dns_entry = [{ dns_name = "*.vpce-3.s3.eu-central-1.vpce.amazonaws.com", hosted_zone_id = "Z" }] }
}

override_resource {
  target          = aws_vpc_endpoint.interface["kinesis-streams"]
  override_during = plan
  values          = { dns_entry = [{ dns_name = "vpce-1.kinesis.eu-central-1.vpce.amazonaws.com", hosted_zone_id = "Z" }] }
}

override_resource {
  target          = aws_vpc_endpoint.interface["rolesanywhere"]
  override_during = plan
  values          = { dns_entry = [{ dns_name = "vpce-4.rolesanywhere.eu-central-1.vpce.amazonaws.com", hosted_zone_id = "Z" }] }
}

override_resource {
  target          = aws_vpc.own[0]
  override_during = plan
  values          = { id = "vpc-own" }
}

override_resource {
  target          = aws_secretsmanager_secret.database["shop"]
  override_during = plan
  values          = { arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:headrace/database/shop-AbCdEf" }
}

override_resource {
  target          = aws_secretsmanager_secret.database["erp"]
  override_during = plan
  values          = { arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:headrace/database/erp-AbCdEf" }
}

variables {
  region      = "eu-central-1"
  kms_key_arn = "arn:aws:kms:eu-central-1:123456789012:key/11111111-2222-3333-4444-555555555555"
  artefacts   = { folder = "tests/bundle" }
  sources     = { shop = {}, erp = { certificate_subject = "erp-agent.site" } }
  agent       = { ca_arn = "arn:aws:acm-pca:eu-central-1:123456789012:certificate-authority/ca-1" }
}

run "only_the_sources_certificate_takes_on_its_role" {
  command = plan

  assert {
    condition = {
      for source, role in aws_iam_role.agent : source => jsondecode(role.assume_role_policy).Statement
      } == {
      for source, subject in { shop = "shop", erp = "erp-agent.site" } : source => [{
        Sid       = "CertificateOfThisSource"
        Effect    = "Allow"
        Action    = ["sts:TagSession", "sts:SetSourceIdentity", "sts:AssumeRole"]
        Principal = { Service = "rolesanywhere.amazonaws.com" }
        Condition = {
          StringEquals = { "aws:PrincipalTag/x509Subject/CN" = subject }
          ArnEquals    = { "aws:SourceArn" = "arn:aws:rolesanywhere:eu-central-1:123456789012:trust-anchor/anchor-1" }
        }
      }]
    }
    error_message = "The trust policy pins the certificate's subject and the trust anchor, and admits nobody else."
  }
  assert {
    condition     = length(aws_rolesanywhere_profile.agent) == 2 && alltrue([for profile in aws_rolesanywhere_profile.agent : profile.enabled && profile.duration_seconds == 3600])
    error_message = "A profile for each source, with sessions of an hour."
  }
}

run "an_agent_may_do_what_it_does_and_no_more" {
  command = plan

  assert {
    condition = {
      for statement in jsondecode(aws_iam_role_policy.agent["erp"].policy).Statement : statement.Sid => sort(flatten([statement.Action]))
      } == {
      SendToStream          = tolist(["kinesis:DescribeStreamSummary", "kinesis:PutRecords"])
      OwnLeaseAndRequests   = tolist(["dynamodb:GetItem", "dynamodb:Query", "dynamodb:UpdateItem"])
      RegisterOwnSchemas    = tolist(["dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:Query"])
      LeaveClaims           = tolist(["s3:PutObject"])
      SendEncrypted         = tolist(["kms:GenerateDataKey"])
      WriteEncryptedObjects = tolist(["kms:GenerateDataKey"])
      UseEncryptedTables    = tolist(["kms:Decrypt"])
    }
    error_message = "The actions that producer/ calls."
  }
  assert {
    condition     = alltrue([for statement in jsondecode(aws_iam_role_policy.agent["erp"].policy).Statement : !contains(flatten([statement.Resource]), "*")])
    error_message = "Each on the resources that it is called on."
  }
  assert {
    condition = {
      for statement in jsondecode(aws_iam_role_policy.agent["erp"].policy).Statement : statement.Sid => flatten([
        for operator, keys in statement.Condition : keys["dynamodb:LeadingKeys"]
      ]) if startswith(statement.Sid, "Own") || startswith(statement.Sid, "Register")
      } == {
      OwnLeaseAndRequests = ["erp"]
      RegisterOwnSchemas  = ["erp.*", "fp:*"]
    }
    error_message = "Items of its own source only."
  }
  assert {
    condition     = one([for statement in jsondecode(aws_iam_role_policy.agent["erp"].policy).Statement : statement.Resource if statement.Sid == "LeaveClaims"]) == "arn:aws:s3:::headrace-lake-123456789012-eu-central-1/claims/erp/*"
    error_message = "Claims of its own source only."
  }
  assert {
    condition     = length(aws_secretsmanager_secret.database) == 0
    error_message = "No secret is made unless it is asked for."
  }
}

run "stolen_credentials_are_worth_nothing_elsewhere" {
  command = plan
  variables {
    network = { enabled = true, site_cidrs = ["10.20.0.0/16"] }
    agent   = { ca_arn = "arn:aws:acm-pca:eu-central-1:123456789012:certificate-authority/ca-1", only_from_vpc = true, password_secrets = true }
  }

  assert {
    condition = one([for statement in jsondecode(aws_iam_role_policy.agent["shop"].policy).Statement : statement if statement.Effect == "Deny"]) == {
      Sid       = "NothingFromElsewhere"
      Effect    = "Deny"
      Action    = ["secretsmanager:*", "s3:*", "kinesis:*", "dynamodb:*"]
      Resource  = "*"
      Condition = { StringNotEquals = { "aws:SourceVpc" = "vpc-own" } }
    }
    error_message = "With agent.only_from_vpc everything that does not come through the VPC is denied."
  }
  assert {
    condition     = one([for statement in jsondecode(aws_iam_role_policy.agent["shop"].policy).Statement : statement.Resource if statement.Sid == "ReadOwnDatabasePassword"]) == "arn:aws:secretsmanager:eu-central-1:123456789012:secret:headrace/database/shop-AbCdEf"
    error_message = "An agent reads the password of its own source and no other."
  }
  assert {
    condition     = alltrue([for secret in aws_secretsmanager_secret.database : secret.kms_key_id == var.kms_key_arn])
    error_message = "The secret is encrypted with the deployment's key."
  }
}

run "principals_by_name" {
  command = plan
  variables {
    agent = { trusted_principals = ["arn:aws:iam::123456789012:role/operator"] }
  }

  assert {
    condition     = length(aws_rolesanywhere_trust_anchor.site) == 0 && jsondecode(aws_iam_role.agent["shop"].assume_role_policy).Statement[0].Principal.AWS == "arn:aws:iam::123456789012:role/operator"
    error_message = "Without an authority there is no trust anchor, and the named principal takes on the role."
  }
}

run "nobody_by_default" {
  command = plan
  variables {
    agent = {}
  }

  assert {
    condition     = length(aws_iam_role.agent) == 0 && length(output.agent_roles) == 0
    error_message = "Until somebody is named who may act as an agent, nobody may."
  }
}

run "a_configuration_to_start_with" {
  command = plan
  variables {
    network = { enabled = true, site_cidrs = ["10.20.0.0/16"], endpoints = ["kinesis-streams", "s3", "rolesanywhere"] }
    agent = {
      ca_arn = "arn:aws:acm-pca:eu-central-1:123456789012:certificate-authority/ca-1"
      sites  = { shop = { dsn = "host=db.site dbname=shop user=headrace", tables = ["public.*", "billing.invoices"] } }
    }
  }

  assert {
    condition     = output.agent_config["shop"] == file("tests/agent.toml")
    error_message = "The rendered agent.toml names stream, prefix, claims, tables and the endpoints' own names."
  }
  assert {
    condition     = strcontains(output.agent_config["erp"], "host=localhost dbname=erp user=headrace")
    error_message = "A source without a site gets a configuration to be completed."
  }
  assert {
    condition     = aws_ssm_parameter.agent["shop"].name == "/headrace/agent/shop" && aws_ssm_parameter.agent["shop"].value == output.agent_config["shop"]
    error_message = "The parameter holds the same."
  }
}

# ------------------------------------------------------------------------------------------------ what is refused

run "a_password_in_the_dsn" {
  command = plan
  variables {
    agent = { ca_arn = "arn:aws:acm-pca:eu-central-1:123456789012:certificate-authority/ca-1", sites = { shop = { dsn = "postgresql://headrace:secret@db/shop" } } }
  }
  expect_failures = [var.agent]
}

run "a_private_key_in_the_bundle" {
  command = plan
  variables {
    agent = { ca_bundle = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n" }
  }
  expect_failures = [var.agent]
}

run "a_whole_account_as_principal" {
  command = plan
  variables {
    agent = { trusted_principals = ["arn:aws:iam::123456789012:root"] }
  }
  expect_failures = [var.agent]
}

run "a_role_name_that_iam_refuses" {
  command = plan
  variables {
    name    = "headrace-production-"
    sources = { a_source_with_a_very_long_name_for_a_site = {} }
  }
  expect_failures = [aws_iam_role.agent["a_source_with_a_very_long_name_for_a_site"]]
}
