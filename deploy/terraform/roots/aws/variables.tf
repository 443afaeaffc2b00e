variable "region" {
  description = "Region of AWS (default: AWS_REGION, or that of the profile)."
  type        = string
  default     = null
}

variable "vpc_cidr" {
  description = "Addresses of the VPC, from /16 to /24."
  type        = string
  default     = "10.88.0.0/16"

  validation {
    condition     = can(cidrnetmask(var.vpc_cidr)) && try(tonumber(split("/", var.vpc_cidr)[1]) >= 16 && tonumber(split("/", var.vpc_cidr)[1]) <= 24, false)
    error_message = "Write an IPv4 network from /16 to /24, such as 10.88.0.0/16."
  }
}

variable "architecture" {
  description = "Of the image that is looked for where ami is not set: arm64 or amd64; instance_type and the package have to be of the same."
  type        = string
  default     = "arm64"

  validation {
    condition     = contains(["arm64", "amd64"], var.architecture)
    error_message = "Write arm64 or amd64."
  }
}

# The rest goes to the module, which says what it is and what it may be.

variable "name" {
  description = "Name of the cluster."
  type        = string
  default     = "mqcluster"
}

variable "client_cidrs" {
  description = "Who may connect to the balancer."
  type        = list(string)
  default     = ["0.0.0.0/0"]
}

variable "admin_cidrs" {
  description = "Who may reach the nodes' SSH and their metrics; nobody if it is empty."
  type        = list(string)
  default     = []
}

variable "voters" {
  description = "How many nodes vote: 3 or 5."
  type        = number
  default     = 3
}

variable "serving_nodes" {
  description = "How many more nodes there are, that serve clients and never vote."
  type        = number
  default     = 0
}

variable "ami" {
  description = "Image of the nodes (default: the newest Debian 12)."
  type        = string
  default     = null
}

variable "instance_type" {
  description = "A type of the Nitro kind."
  type        = string
  default     = "m7g.large"
}

variable "key_name" {
  description = "Name of the key pair with which ssh_user logs in."
  type        = string
  default     = null
}

variable "ssh_user" {
  description = "Who logs in to the nodes and may use sudo."
  type        = string
  default     = "admin"
}

variable "ssh_command" {
  description = "How gate_command and balance_command reach a node."
  type        = string
  default     = "ssh -o BatchMode=yes -o ConnectTimeout=5 -o StrictHostKeyChecking=accept-new"
}

variable "package_url" {
  description = "Where nodes get the Debian package that make deb made; null: it is in the image."
  type        = string
  default     = null
}

variable "package_sha256" {
  description = "What sha256sum prints for the package."
  type        = string
  default     = null
}

variable "volume_size" {
  description = "Size of each node's volume, in GiB."
  type        = number
  default     = 50
}

variable "server_names" {
  description = "More names in the nodes' certificates: those by which clients call the balancer."
  type        = list(string)
  default     = []
}

variable "require_client_cert" {
  description = "Whether clients without a certificate are refused."
  type        = bool
  default     = false
}

variable "max_keep_alive" {
  description = "Keep alive of clients that ask for a longer one, in seconds."
  type        = number
  default     = 1800
}

variable "idle_timeout" {
  description = "After how many seconds of silence the balancer ends a connection."
  type        = number
  default     = 3600
}

variable "settings" {
  description = "More of mqcluster.yaml."
  type        = any
  default     = {}
}

variable "backup_recipient" {
  description = "For whom backups are encrypted: what mqcluster backup keygen prints."
  type        = string
}

variable "backup_hours" {
  description = "Hours between two backups."
  type        = number
  default     = 6
}

variable "backup_days" {
  description = "Days after which a backup is removed."
  type        = number
  default     = 30
}

variable "destroy_backups" {
  description = "Whether destroy removes the bucket with backups in it."
  type        = bool
  default     = false
}

variable "alarm_actions" {
  description = "What alarms call: ARNs of SNS topics."
  type        = list(string)
  default     = []
}

variable "tags" {
  description = "Tags of everything that is made."
  type        = map(string)
  default     = {}
}
