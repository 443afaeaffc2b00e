//go:build plant_skip_pack_number

package fsm

const planted = skipNumber
