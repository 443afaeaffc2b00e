//go:build !plant_lose_epoch_fence && !plant_skip_pack_number && !plant_skip_qos2_record && !plant_will_twice && !plant_shared_member_local

package fsm

const planted = sound
