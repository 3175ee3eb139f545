# Secrets are made empty and filled by a person: no value passes through Terraform, its state or its arguments.
# The VPN's keys lie in a secret that AWS makes (vpn.tf).

# The database password of each source, for the agent's start. Rotation: put the new value, then change the password in
# the database, then restart the agent; its connection lives on meanwhile. AWS cannot rotate it by itself, since its
# rotation function would need a way into the site's database.
resource "aws_secretsmanager_secret" "database" {
  for_each = var.agent.password_secrets ? local.agents : {}

  #checkov:skip=CKV2_AWS_57:Rotated by a person, as said above
  name                    = "${var.name}/database/${each.key}"
  description             = "Password of the replication user of the source ${each.key}."
  kms_key_id              = local.kms_key_arn
  recovery_window_in_days = 7
}

locals {
  password_secret_arns = { for source, secret in aws_secretsmanager_secret.database : source => secret.arn }
}
