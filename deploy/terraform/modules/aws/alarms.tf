# Every node puts its numbers each minute (node.sh). What is about the cluster is put
# by whoever sees it; what is about a node has its name.

locals {
  of_cluster = { Cluster = var.name }
}

resource "aws_cloudwatch_metric_alarm" "quorum" {
  alarm_name          = "${var.name}-quorum"
  alarm_description   = "No node sees a majority of the voters: nothing is accepted. See docs/failures.md."
  namespace           = "mqcluster"
  metric_name         = "Quorum"
  dimensions          = local.of_cluster
  statistic           = "Maximum"
  comparison_operator = "LessThanThreshold"
  threshold           = 1
  period              = 60
  evaluation_periods  = 2
  treat_missing_data  = "breaching"
  alarm_actions       = var.alarm_actions
  ok_actions          = var.alarm_actions
  tags                = local.tags
}

resource "aws_cloudwatch_metric_alarm" "voters" {
  alarm_name          = "${var.name}-voters"
  alarm_description   = "Fewer voters are up than there should be: the cluster serves, and bears fewer failures."
  namespace           = "mqcluster"
  metric_name         = "VotersUp"
  dimensions          = local.of_cluster
  statistic           = "Maximum"
  comparison_operator = "LessThanThreshold"
  threshold           = var.voters
  period              = 60
  evaluation_periods  = 10
  treat_missing_data  = "breaching"
  alarm_actions       = var.alarm_actions
  ok_actions          = var.alarm_actions
  tags                = local.tags
}

resource "aws_cloudwatch_metric_alarm" "disk" {
  for_each            = local.nodes
  alarm_name          = "${var.name}-${each.key}-disk"
  alarm_description   = "The volume of node ${each.key} fills: make volume_size larger, or see what waits with mqcluster session list."
  namespace           = "mqcluster"
  metric_name         = "DiskUsedPercent"
  dimensions          = merge(local.of_cluster, { Node = each.key })
  statistic           = "Maximum"
  comparison_operator = "GreaterThanThreshold"
  threshold           = 80
  period              = 300
  evaluation_periods  = 1
  treat_missing_data  = "missing"
  alarm_actions       = var.alarm_actions
  ok_actions          = var.alarm_actions
  tags                = local.tags
}

# Nodes renew their certificates of 30 days when two thirds are over.
resource "aws_cloudwatch_metric_alarm" "certificate" {
  for_each            = local.nodes
  alarm_name          = "${var.name}-${each.key}-certificate"
  alarm_description   = "A certificate of node ${each.key}, or of the cluster's authority, ends within a week and was not renewed."
  namespace           = "mqcluster"
  metric_name         = "CertificateDaysLeft"
  dimensions          = merge(local.of_cluster, { Node = each.key })
  statistic           = "Minimum"
  comparison_operator = "LessThanThreshold"
  threshold           = 7
  period              = 3600
  evaluation_periods  = 1
  treat_missing_data  = "missing"
  alarm_actions       = var.alarm_actions
  ok_actions          = var.alarm_actions
  tags                = local.tags
}

resource "aws_cloudwatch_metric_alarm" "backup" {
  alarm_name          = "${var.name}-backup"
  alarm_description   = "No backup was put for a day. journalctl -u mqcluster-aws-backup on the leader tells why."
  namespace           = "mqcluster"
  metric_name         = "BackupsPut"
  dimensions          = local.of_cluster
  statistic           = "Sum"
  comparison_operator = "LessThanThreshold"
  threshold           = 1
  period              = 86400
  evaluation_periods  = 1
  treat_missing_data  = "breaching"
  alarm_actions       = var.alarm_actions
  ok_actions          = var.alarm_actions
  tags                = local.tags
}
