//go:build plant_will_twice

package fsm

const planted = willTwice
