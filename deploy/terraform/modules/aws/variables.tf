variable "name" {
  description = "Name of the cluster; everything that is made has it in its own name."
  type        = string
  default     = "mqcluster"

  # A balancer's name has 32 characters at most.
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,18}[a-z0-9]$", var.name))
    error_message = "Write 2 to 20 small letters, digits and dashes, beginning with a letter and not ending with a dash."
  }
}

variable "vpc_id" {
  description = "The VPC of the subnets."
  type        = string
}

variable "subnet_ids" {
  description = "Subnets for the nodes, in three zones or more. Nodes reach AWS and package_url from there: by a NAT or endpoints, or by addresses of their own (public_addresses)."
  type        = list(string)

  validation {
    condition     = length(var.subnet_ids) >= 3 && length(distinct(var.subnet_ids)) == length(var.subnet_ids)
    error_message = "Write three different subnets or more: with fewer zones, one that fails takes the majority along."
  }
}

variable "balancer_subnet_ids" {
  description = "Subnets for the balancer, one of each zone (default: those of the nodes)."
  type        = list(string)
  default     = null
}

variable "internal" {
  description = "Whether the balancer is for the VPC only, without addresses of the internet."
  type        = bool
  default     = false
}

variable "public_addresses" {
  description = "Whether each node has an address of the internet of its own; nothing may come in by it but from admin_cidrs."
  type        = bool
  default     = false
}

variable "client_cidrs" {
  description = "Who may connect to the balancer."
  type        = list(string)
  default     = ["0.0.0.0/0"]

  validation {
    condition     = alltrue([for c in var.client_cidrs : can(cidrnetmask(c))])
    error_message = "Write IPv4 networks, such as 192.0.2.0/24."
  }
}

variable "admin_cidrs" {
  description = "Who may reach the nodes' SSH and their metrics; nobody if it is empty. rolling-replace.sh uses SSH."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for c in var.admin_cidrs : can(cidrnetmask(c)) && c != "0.0.0.0/0"])
    error_message = "Write IPv4 networks, such as 192.0.2.0/24, and not the whole world."
  }
}

variable "voters" {
  description = "How many nodes vote."
  type        = number
  default     = 3

  validation {
    condition     = contains([3, 5], var.voters)
    error_message = "Write 3 or 5: an even number of voters bears no more failures than one less."
  }
}

variable "serving_nodes" {
  description = "How many more nodes there are, that serve clients and never vote."
  type        = number
  default     = 0

  validation {
    condition     = var.serving_nodes >= 0 && var.serving_nodes <= 16 && floor(var.serving_nodes) == var.serving_nodes
    error_message = "Write 0 to 16: a spread placement group has seven machines in a zone at most."
  }
}

variable "ami" {
  description = "Image of the nodes: Debian 12 or one like it (systemd, dpkg, curl 7.87, openssl), for the architecture of instance_type."
  type        = string
}

variable "instance_type" {
  description = "A type of the Nitro kind."
  type        = string
  default     = "m7g.large"
}

variable "key_name" {
  description = "Name of the key pair with which ssh_user logs in; null: none."
  type        = string
  default     = null
}

variable "ssh_user" {
  description = "Who logs in to the nodes and may use sudo; the image decides (Debian: admin, Ubuntu: ubuntu)."
  type        = string
  default     = "admin"
}

variable "ssh_command" {
  description = "How gate_command and balance_command reach a node: its user and address follow, then what is run there."
  type        = string
  default     = "ssh -o BatchMode=yes -o ConnectTimeout=5 -o StrictHostKeyChecking=accept-new"
}

variable "package_url" {
  description = "Where nodes get the Debian package that make deb made, by HTTPS; null: it is in the image."
  type        = string
  default     = null

  validation {
    condition     = var.package_url == null ? true : can(regex("^https?://[^ '\"]+$", var.package_url))
    error_message = "Write a URL that begins with https://."
  }
}

variable "package_sha256" {
  description = "What sha256sum prints for the package; a node installs no other."
  type        = string
  default     = null

  validation {
    condition     = var.package_url == null ? true : can(regex("^[0-9a-f]{64}$", var.package_sha256))
    error_message = "Write the 64 digits that sha256sum prints for the package at package_url."
  }
}

variable "volume_size" {
  description = "Size of each node's volume, in GiB."
  type        = number
  default     = 50

  validation {
    condition     = var.volume_size >= 4 && floor(var.volume_size) == var.volume_size
    error_message = "Write whole GiB, 4 or more."
  }
}

variable "volume_iops" {
  description = "Operations a second of each volume; 3000 cost nothing extra."
  type        = number
  default     = 3000
}

variable "volume_throughput" {
  description = "MiB a second of each volume; 125 cost nothing extra."
  type        = number
  default     = 125
}

variable "kms_key_arn" {
  description = "Key of KMS for volumes, join token and bucket (default: those that AWS keeps for the account)."
  type        = string
  default     = null
}

variable "server_names" {
  description = "More names in the nodes' certificates, besides the balancer's own: those by which clients call it."
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

  validation {
    condition     = var.max_keep_alive >= 1 && floor(var.max_keep_alive) == var.max_keep_alive
    error_message = "Write whole seconds, 1 or more."
  }
}

variable "idle_timeout" {
  description = "After how many seconds of silence the balancer ends a connection, 6000 at most."
  type        = number
  default     = 3600

  validation {
    condition     = var.idle_timeout >= 60 && var.idle_timeout <= 6000 && floor(var.idle_timeout) == var.idle_timeout
    error_message = "Write 60 to 6000: the balancer takes no other."
  }
  # A client is given up by the node after one and a half times its keep alive.
  validation {
    condition     = var.idle_timeout > 1.5 * var.max_keep_alive
    error_message = "Write more than one and a half times max_keep_alive: else connections end that nothing is wrong with."
  }
}

variable "settings" {
  description = "More of mqcluster.yaml, such as { limits = { max_packet_size = \"4MiB\" } }. What the module sets itself stays as it is."
  type        = any
  default     = {}
}

variable "backup_recipient" {
  description = "For whom backups are encrypted: what mqcluster backup keygen prints. Keep the key that it writes away from AWS."
  type        = string

  validation {
    condition     = can(regex("^age1[0-9a-z]{58,}$", var.backup_recipient))
    error_message = "Write the recipient that mqcluster backup keygen prints; it begins with age1."
  }
}

variable "backup_hours" {
  description = "Hours between two backups."
  type        = number
  default     = 6

  validation {
    condition     = contains([1, 2, 3, 4, 6, 8, 12, 24], var.backup_hours)
    error_message = "Write 1, 2, 3, 4, 6, 8, 12 or 24."
  }
}

variable "backup_days" {
  description = "Days after which a backup is removed."
  type        = number
  default     = 30

  validation {
    condition     = var.backup_days >= 1 && floor(var.backup_days) == var.backup_days
    error_message = "Write whole days, 1 or more."
  }
}

variable "destroy_backups" {
  description = "Whether destroy removes the bucket with backups in it; without it, destroy fails there."
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
