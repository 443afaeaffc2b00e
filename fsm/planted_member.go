//go:build plant_shared_member_local

package fsm

const planted = localMember
