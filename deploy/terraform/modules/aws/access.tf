# What a node may do in AWS: read the parameters, write the token and the CA, put
# backups and numbers. It can neither read, list nor delete a backup.

resource "aws_iam_role" "node" {
  name_prefix = "${var.name}-"
  description = "The nodes of ${var.name}"
  tags        = local.tags

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "ec2.${data.aws_partition.current.dns_suffix}" }
    }]
  })
}

resource "aws_iam_instance_profile" "node" {
  name_prefix = "${var.name}-"
  role        = aws_iam_role.node.name
  tags        = local.tags
}

resource "aws_iam_role_policy" "node" {
  name = "node"
  role = aws_iam_role.node.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat([
      {
        Sid      = "ReadParameters"
        Effect   = "Allow"
        Action   = "ssm:GetParameter"
        Resource = [aws_ssm_parameter.token.arn, aws_ssm_parameter.ca.arn, aws_ssm_parameter.nodes.arn]
      },
      {
        Sid      = "WriteTokenAndCA"
        Effect   = "Allow"
        Action   = "ssm:PutParameter"
        Resource = [aws_ssm_parameter.token.arn, aws_ssm_parameter.ca.arn]
      },
      {
        Sid      = "PutBackups"
        Effect   = "Allow"
        Action   = "s3:PutObject"
        Resource = "${aws_s3_bucket.backup.arn}/backup/*"
      },
      {
        Sid       = "PutMetrics"
        Effect    = "Allow"
        Action    = "cloudwatch:PutMetricData"
        Resource  = "*"
        Condition = { StringEquals = { "cloudwatch:namespace" = "mqcluster" } }
      },
      ], var.kms_key_arn == null ? [] : [{
        Sid      = "UseKey"
        Effect   = "Allow"
        Action   = ["kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey"]
        Resource = var.kms_key_arn
    }])
  })
}
