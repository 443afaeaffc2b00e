package history

// judgeQuota judges that no connection has more messages of QoS 1 and 2 under way
// than its Receive Maximum allows [MQTT-3.3.4-9].
func (c *check) judgeQuota() {
	for _, cn := range c.conns {
		if cn.asked.Quota == 0 {
			continue
		}
		under := map[uint16]Event{}
		for _, e := range cn.events {
			before, is := under[e.PacketID]
			switch {
			case e.Kind == Received && e.QoS > 0:
				under[e.PacketID] = *e
			case e.Kind == Released && is:
				before.QoS = 1 // the next acknowledgement is the last
				under[e.PacketID] = before
			case e.Kind == ReceiveAcked && is && before.QoS == 1:
				delete(under, e.PacketID)
			}
			if len(under) > int(cn.asked.Quota) {
				c.violate(RuleQuota, []Event{cn.asked, *e}, "%s has %d messages under way, its Receive Maximum is %d",
					cn.asked.Client, len(under), cn.asked.Quota)
				break
			}
		}
	}
}
