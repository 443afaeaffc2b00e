//go:build plant_lose_epoch_fence

package fsm

const planted = loseFence
