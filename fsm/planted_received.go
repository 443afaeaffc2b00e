//go:build plant_skip_qos2_record

package fsm

const planted = skipReceived
